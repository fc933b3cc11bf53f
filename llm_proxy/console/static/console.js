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

/* Without https, except on localhost, a page may not copy: then there are no buttons for it. */
function offerCopies(root) {
  if (!navigator.clipboard) return;
  for (const source of root.querySelectorAll("[data-copy]")) {
    const text = source.textContent.trim();
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + (source.dataset.copy || "text"));
    copies(button, text);
    source.append(button);
  }
  for (const button of root.querySelectorAll("[data-link]")) {
    button.hidden = false;
    copies(button, new URL(button.dataset.link, location.href).href);
  }
}

function copies(button, text) {
  const label = button.textContent;
  const said = document.querySelector("#done");
  button.addEventListener("click", async () => {
    const done = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not copied");
    button.textContent = said.textContent = done;
    setTimeout(() => { button.textContent = label; said.textContent = ""; }, 1500);
  });
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

/* How long until an approval expires, counting down by the server's clock, which the page tells. */
let ahead = 0;

function setClock(root) {
  const place = root.querySelector("[data-now]");
  if (place) ahead = Date.now() - Number(place.dataset.now) / 1e3;
}

function countDown() {
  for (const place of document.querySelectorAll("[data-left]")) {
    const left = Math.floor((Number(place.dataset.left) / 1e3 - Date.now() + ahead) / 1000);
    const minutes = Math.floor(left / 60);
    place.textContent = left <= 0 ? "expired" : "in " + (minutes ? minutes + " min " : "") + (left % 60) + " s";
  }
}

/* The queue is fetched anew whenever the server says that it's another, and while the server says nothing. */
const RETRY_MS = 10000, SILENT_MS = 5000;
const queue = document.querySelector("[data-live]");
let queueSent = queue && queue.innerHTML;

function links(root) {
  return new Set(Array.from(root.querySelectorAll("tbody a"), (link) => link.getAttribute("href")));
}

/* Puts the rows in; whoever stood on a link, or had scrolled, stays there. */
function putQueue(fresh) {
  const before = links(queue), on = queue.contains(document.activeElement) ? document.activeElement : null;
  const left = queue.firstElementChild.scrollLeft;
  queue.innerHTML = fresh.innerHTML;
  tellTimes(queue);
  queue.firstElementChild.scrollLeft = left;
  if (on) {
    const href = on.getAttribute("href");
    const same = queue.querySelector(href ? 'a[href="' + CSS.escape(href) + '"]' : "[tabindex]");
    (same || document.querySelector("#content")).focus({ preventScroll: true });
  }
  const added = Array.from(links(queue)).filter((href) => !before.has(href)).length;
  return added ? added + " new approval" + (added === 1 ? "" : "s") : "The queue has changed";
}

async function fetchQueue(tell) {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (!answer) return;
  if (answer.redirected || answer.status === 403) { location.reload(); return; }
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("#queue");
  if (!fresh) return;
  setClock(page);
  if (fresh.innerHTML !== queueSent) {
    queueSent = fresh.innerHTML;
    tell(putQueue(fresh));
  }
  countDown();
}

function followQueue() {
  if (!queue) return;
  const news = document.querySelector("#news");
  let silent = 0;
  const tell = (text) => { if (news.textContent !== text) news.textContent = text; };
  const deaf = (more = "") => tell(more + "Not live just now: it is tried again every few seconds.");
  const listen = () => {
    const source = new EventSource(queue.dataset.live);
    source.addEventListener("open", () => { clearTimeout(silent); silent = 0; tell(""); });
    source.addEventListener("changed", () => fetchQueue(tell));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        deaf();
        fetchQueue((text) => deaf(text + ". "));
        setTimeout(listen, RETRY_MS);
      } else if (!silent) {
        silent = setTimeout(deaf, SILENT_MS);
      }
    });
  };
  listen();
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
  setClock(document);
  countDown();
  setInterval(countDown, 1000);
  followQueue();
  offerVerifying();
});

/* A page that comes later: with a fragment no browser's Refresh loads it anew, nor does loading anew go there. */
window.addEventListener("load", () => {
  if (!location.hash) return;
  if (document.querySelector("[data-later]")) setTimeout(() => location.reload(), 1000);
  else if (!scrollY) document.getElementById(location.hash.slice(1))?.scrollIntoView();
});
