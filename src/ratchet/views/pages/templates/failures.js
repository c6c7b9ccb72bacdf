"use strict";
(function () {
  const one = (selector, within) => (within || document).querySelector(selector);
  const all = (selector, within) => Array.from((within || document).querySelectorAll(selector));
  const make = (name, text) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const map = one("#map");
  const table = one("#table");
  const articles = all(".cluster");
  document.documentElement.classList.add("scripted");

  const HINT = "Point at a message to read it; click it" + (articles.length ? ", or a name, to select its cluster." : " to keep it here.");

  // Selecting -----------------------------------------------------------------------------------

  const name = (place) => one("h2 bdi", articles[place]).textContent;
  let selected = -1;

  function select(place, options) {
    if (!articles[place]) return;
    selected = place;
    articles.forEach((article, i) => { article.hidden = i !== place; });
    all("#table tbody tr").forEach((row) => row.classList.toggle("on", Number(row.dataset.cluster) === place));
    if (options && options.mark && map) {
      map.classList.add("some");
      all("g[data-cluster]", map).forEach((g) => g.classList.toggle("on", Number(g.dataset.cluster) === place));
      all("button", map).forEach((b) => b.setAttribute("aria-pressed", String(Number(b.dataset.cluster) === place)));
      say(place);
    }
    if (options && options.reveal) {
      one("h2", articles[place]).focus({ preventScroll: true });
      articles[place].scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
    }
  }

  function clear() {
    map.classList.remove("some");
    all("g.on", map).forEach((g) => g.classList.remove("on"));
    all("button", map).forEach((b) => b.setAttribute("aria-pressed", "false"));
    one("#picked").replaceChildren(make("p", HINT));
  }

  function say(place, point) {
    const said = [];
    if (place >= 0) {
      const line = make("p");
      const number = one(".number", articles[place]).cloneNode(true);
      const link = make("a", "Read its examples");
      link.href = "#cluster-" + (place + 1);
      link.dataset.cluster = place;
      line.append(number, " ", make("bdi", name(place)), ": ", one(".sum b", articles[place]).textContent, " fail. ", link);
      said.push(line);
    }
    if (point !== undefined) {
      const quote = make("blockquote", points.text[point]);
      quote.dir = "auto";
      said.push(quote, make("p", counted(point) + (place < 0 ? "; in no cluster" : "")));
    }
    one("#picked").replaceChildren(...said);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-cluster]");
    const row = link ? null : event.target.closest("#table tbody tr");
    if (!link && !row) return;
    if (link) event.preventDefault();
    else if (String(getSelection())) return;
    const place = Number((link || row).dataset.cluster);
    select(place, { mark: true, reveal: true });
    try { history.replaceState(null, "", "#cluster-" + (place + 1)); } catch (refused) { /* in a frame */ }
  });
  function follow() {
    const to = /^#cluster-(\d+)$/.exec(location.hash);
    if (to && articles[to[1] - 1]) select(to[1] - 1, { mark: true, reveal: true });
  }
  addEventListener("hashchange", follow);
  select(0);

  // Sorting -------------------------------------------------------------------------------------

  const TEXTS = ["name", "trend", "seen"];
  function sort(head) {
    const key = head.dataset.key;
    const text = TEXTS.includes(key);
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : !text;
    const body = one("tbody", table);
    const value = (row) => row.dataset[key];
    const order = (a, b) => {
      if (!value(a) || !value(b)) return Number(!value(a)) - Number(!value(b));  // unknown ones last
      const sign = down ? -1 : 1;
      const by = text ? value(a).localeCompare(value(b)) : Number(value(a)) - Number(value(b));
      return sign * by || a.dataset.cluster - b.dataset.cluster;
    };
    all("th", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...all("tr", body).sort(order));
  }
  if (table) {
    all("thead th", table).forEach((head) => {
      const button = make("button", head.textContent);
      button.type = "button";
      button.addEventListener("click", () => sort(head));
      head.replaceChildren(button);
    });
  }
  if (!map) { follow(); return; }

  // The map -------------------------------------------------------------------------------------

  const points = JSON.parse(one("#points").textContent);
  const count = points.x.length;
  const tip = one("#tip");
  const labels = one("#labels");
  const leaders = one("#leaders");
  const counted = (i) => {
    const often = points.seen[i] === 1 ? "once" : points.seen[i] + " times";
    const failed = points.failures[i];
    const cut = points.characters[i] > points.text[i].length ? "; " + points.characters[i].toLocaleString("en") + " characters in all" : "";
    return "said " + often + ", " + (failed === 0 ? "did not fail" : failed === points.seen[i] ? "failed" + (failed > 1 ? " each time" : "") : "failed " + failed + " of them") + cut;
  };

  let here = -1;
  function show(point) {
    here = point;
    map.classList.toggle("at", point >= 0);
    tip.hidden = point < 0;
    if (point < 0) return;
    one("#here").setAttribute("d", "M" + points.x[point] + " " + points.y[point] + "h.01");
    const place = points.cluster[point];
    const text = points.text[point];
    const shown = make("div", text.length > 280 ? text.slice(0, 279) + "…" : text);
    shown.dir = "auto";
    const about = make("small", counted(point));
    tip.replaceChildren(shown, about);
    if (place >= 0) {
      const of = make("small", (place + 1) + " ");
      of.append(make("bdi", name(place)));
      tip.append(of);
    }
    const box = map.getBoundingClientRect();
    const x = points.x[point] / 1000 * box.width;
    const y = points.y[point] / 1000 * box.height;
    const left = Math.max(4, Math.min(x - tip.offsetWidth / 2, box.width - tip.offsetWidth - 4));
    const above = y - tip.offsetHeight - 14;
    tip.style.transform = "translate(" + left + "px," + (above > 4 ? above : y + 14) + "px)";
  }

  function nearest(event, reach) {
    const box = map.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    let best = -1;
    let least = reach * reach;
    for (let i = 0; i < count; i++) {
      const dx = points.x[i] / 1000 * box.width - x;
      const dy = points.y[i] / 1000 * box.height - y;
      const far = dx * dx + dy * dy - (points.cluster[i] >= 0 ? 9 : 0);  // coloured ones first
      if (far < least) { least = far; best = i; }
    }
    return best;
  }

  function pick(point) {
    const place = points.cluster[point];
    if (place >= 0) select(place, { mark: true });
    else clear();
    say(place, point);
  }

  map.addEventListener("pointermove", (event) => show(event.target.closest("button") ? -1 : nearest(event, 16)));
  map.addEventListener("pointerleave", () => show(-1));
  map.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { select(Number(button.dataset.cluster), { mark: true }); return; }
    const point = nearest(event, 22);
    show(point);
    if (point >= 0) pick(point);
    else clear();
  });

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function step([dx, dy]) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < count; i++) {
      const along = (points.x[i] - points.x[here]) * dx + (points.y[i] - points.y[here]) * dy;
      const aside = Math.abs((points.x[i] - points.x[here]) * dy) + Math.abs((points.y[i] - points.y[here]) * dx);
      if (along > 0 && along + 2 * aside < least) { least = along + 2 * aside; best = i; }
    }
    return best < 0 ? here : best;
  }
  map.addEventListener("keydown", (event) => {
    if (event.target !== map) return;
    if (STEPS[event.key] && count) {
      event.preventDefault();
      const first = Math.max(0, points.cluster.indexOf(selected));
      show(here < 0 ? first : step(STEPS[event.key]));
      say(points.cluster[here], here);
    } else if (event.key === "Enter" && here >= 0) {
      pick(here);
    } else if (event.key === "Escape") {
      show(-1);
      clear();
    }
  });
  map.addEventListener("blur", () => show(-1));

  // Names, where they hide little and never each other --------------------------------------------

  function densest(place) {
    const own = [];
    for (let i = 0; i < count; i++) if (points.cluster[i] === place) own.push(i);
    const near = (i) => own.reduce((sum, j) => {
      const far = (points.x[i] - points.x[j]) ** 2 + (points.y[i] - points.y[j]) ** 2;
      return sum + Math.max(0, 1 - far / 3600);
    }, 0);
    let best = -1;
    let most = -1;
    for (const i of own.slice(0, 600)) {
      const density = near(i);
      if (density > most) { most = density; best = i; }
    }
    return best;
  }

  const buttons = [];
  articles.forEach((article, place) => {
    const at = densest(place);
    if (at < 0) return;
    const button = make("button");
    button.type = "button";
    button.dataset.cluster = place;
    button.className = "c" + (place % 8);
    button.setAttribute("aria-pressed", "false");
    button.append(one(".number", article).cloneNode(true), make("span", name(place)));
    button.setAttribute("aria-label", "Cluster " + (place + 1) + ": " + name(place));
    labels.append(button);
    buttons.push({ button, at, place });
  });

  function arrange() {
    const width = map.clientWidth;
    const height = map.clientHeight;
    const px = points.x.map((x) => x / 1000 * width);
    const py = points.y.map((y) => y / 1000 * height);
    const taken = [];
    const lines = [];
    const hidden = (x, y, w, h, place) => {
      let sum = 0;
      for (let i = 0; i < count; i++) {
        if (px[i] > x - 4 && px[i] < x + w + 4 && py[i] > y - 4 && py[i] < y + h + 4) {
          sum += points.cluster[i] < 0 ? 0.15 : points.cluster[i] === place ? 0.7 : 1;
        }
      }
      return sum;
    };
    const best = (item) => {
      const w = item.button.offsetWidth;
      const h = item.button.offsetHeight;
      let found = null;
      for (let radius = 0; radius <= 170; radius += 17) {
        for (let turn = 0; turn < (radius ? 16 : 1); turn++) {
          const angle = turn * Math.PI / 8;
          const cx = px[item.at] + Math.cos(angle) * (radius + (radius ? w / 2 - h / 2 : 0));
          const cy = py[item.at] + Math.sin(angle) * radius;
          const x = cx - w / 2;
          const y = cy - h / 2;
          if (x < 3 || y < 3 || x + w > width - 3 || y + h > height - 3) continue;
          if (taken.some((t) => x < t.x + t.w + 3 && t.x < x + w + 3 && y < t.y + t.h + 3 && t.y < y + h + 3)) continue;
          const cost = hidden(x, y, w, h, item.place) + radius / 9;
          if (!found || cost < found.cost) found = { x, y, w, h, cost, radius };
        }
      }
      return found;
    };
    const narrow = width < 560;
    for (const item of buttons) {
      item.button.classList.toggle("short", narrow);
      let spot = best(item);
      if (!spot) { item.button.classList.add("short"); spot = best(item); }
      if (!spot) spot = { x: px[item.at], y: py[item.at], w: 20, h: 20 };
      taken.push(spot);
      item.button.style.transform = "translate(" + Math.round(spot.x) + "px," + Math.round(spot.y) + "px)";
      const x = Math.max(spot.x, Math.min(px[item.at], spot.x + spot.w));
      const y = Math.max(spot.y, Math.min(py[item.at], spot.y + spot.h));
      if (Math.hypot(x - px[item.at], y - py[item.at]) > 9) {
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        line.setAttribute("x1", x / width * 1000);
        line.setAttribute("y1", y / height * 1000);
        line.setAttribute("x2", points.x[item.at]);
        line.setAttribute("y2", points.y[item.at]);
        lines.push(line);
      }
    }
    leaders.replaceChildren(...lines);
  }
  new ResizeObserver(arrange).observe(map);
  clear();
  follow();
})();
