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
    const text = source.textContent.trim();
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + (source.dataset.copy || "text"));
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    source.append(button);
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
      margin: { l: 50, r: 10, t: 10, b: 30 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, height: 300,
    }, figure.layout);
    const days = { nticks: Math.max(2, Math.floor(place.clientWidth / 110)), tickangle: 0, ticks: "outside", ticklen: 7, tickcolor: line };
    layout.xaxis = Object.assign({}, axis, days, layout.xaxis);
    layout.yaxis = Object.assign({}, axis, layout.yaxis);
    Plotly.newPlot(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  tellTimes(document);
  offerCopies(document);
  if (typeof Plotly !== "undefined") drawPlots(document);
});

/* How long until an approval expires, counting down. */
function countDown() {
  for (const place of document.querySelectorAll("[data-left]")) {
    const left = Math.floor(Number(place.dataset.left) / 1e6 - Date.now() / 1000);
    const minutes = Math.floor(left / 60);
    place.textContent = left <= 0 ? "expired" : "in " + (minutes ? minutes + " min " : "") + (left % 60) + " s";
  }
}

/* The queue is fetched anew whenever the server says that it's another. */
function followQueue() {
  const queue = document.querySelector("[data-live]");
  if (!queue) return;
  const source = new EventSource(queue.dataset.live);
  source.addEventListener("changed", async () => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) { location.reload(); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("#queue");
    if (fresh) { queue.innerHTML = fresh.innerHTML; tellTimes(queue); countDown(); }
  });
}

function offerVerifying() {
  const button = document.querySelector("[data-verify]");
  if (!button) return;
  const progress = document.querySelector("#progress"), report = document.querySelector("#report");
  button.addEventListener("click", () => {
    button.disabled = true;
    report.textContent = "";
    progress.textContent = "Reading …";
    const source = new EventSource(button.dataset.verify);
    const end = (said) => { source.close(); button.disabled = false; progress.textContent = said; };
    source.addEventListener("progress", (news) => { progress.textContent = news.data; });
    source.addEventListener("report", (news) => { report.innerHTML = news.data; end(""); });
    source.onerror = () => end("It broke off: try again shortly.");
  });
}

document.addEventListener("DOMContentLoaded", () => {
  countDown();
  setInterval(countDown, 1000);
  followQueue();
  offerVerifying();
});
