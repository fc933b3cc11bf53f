/* What the pages do by script: times in the viewer's zone, copying, plots, and news from the server. */
"use strict";

const shown = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23", timeZoneName: "short",
});

function tellTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    time.title = time.dateTime;
    time.textContent = shown.format(moment);
  }
}

function offerCopies(root) {
  for (const source of root.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + (source.dataset.copy || "text"));
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    source.after(button);
  }
}

function drawPlots(root) {
  for (const place of root.querySelectorAll("[data-plot]")) {
    const figure = JSON.parse(place.dataset.plot);
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
    const layout = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif" },
      margin: { l: 50, r: 10, t: 10, b: 40 }, legend: { orientation: "h", y: -0.2 }, height: 300,
    }, figure.layout);
    layout.xaxis = Object.assign({}, axis, layout.xaxis);
    layout.yaxis = Object.assign({}, axis, layout.yaxis);
    Plotly.newPlot(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  tellTimes(document);
  offerCopies(document);
  if (typeof Plotly !== "undefined") drawPlots(document);
});
