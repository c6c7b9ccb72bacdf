/* Ratchet feedback: thumbs, comments, and what users do without being asked. No dependencies.
 *
 *   <script src="https://GATEWAY/feedback.js"></script>
 *   ratchet.answer(element, {id: completion.id, token: completion.ratchet.token});
 *
 * Elements that carry data-ratchet-id and data-ratchet-token are found by themselves. It adds
 * thumbs and a comment box after each answer and senses copy, follow-up (`ratchet.asked()`),
 * regenerate (`ratchet.regenerated(id)`) and the end of the session with its length. Events wait in
 * localStorage until the gateway has taken them, so being offline loses none. With do-not-track
 * (or data-track="off" on the script) nothing is sensed: only what a user presses is sent.
 */
(function () {
  "use strict";
  var script = document.currentScript;
  var base = new URL(script ? script.src : location.href).origin;
  var KEY = "ratchet.queue", BATCH = 200, MOST = 2000;
  var tracks = !(script && script.dataset.track === "off") &&
    navigator.doNotTrack !== "1" && window.doNotTrack !== "1" &&
    !(navigator.globalPrivacyControl);
  var answers = new Map(), latest = null, began = null, ended = false, sending = false, wait = 1000;

  function uid() {
    if (window.crypto && crypto.randomUUID) return crypto.randomUUID();
    var b = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(b, function (x) { return x.toString(16).padStart(2, "0"); }).join("");
  }
  function load() {
    try { return JSON.parse(localStorage.getItem(KEY)) || []; } catch (e) { return memory; }
  }
  var memory = [];
  function save(queue) {
    memory = queue.slice(-MOST);
    try { localStorage.setItem(KEY, JSON.stringify(memory)); } catch (e) { /* kept in memory */ }
  }
  function forget(ids) {
    save(load().filter(function (e) { return !ids.has(e.id); }));
  }
  function record(id, kind, value) {
    var answer = answers.get(id);
    if (!answer) return;
    var event = {id: uid(), interaction_id: id, kind: kind, value: value,
                 created_at: new Date().toISOString()};
    if (answer.token) event.token = answer.token;
    save(load().concat([event]));
    flush();
  }
  function flush() {
    if (sending) return;
    var batch = load().slice(0, BATCH);
    if (!batch.length) return;
    sending = true;
    fetch(base + "/v1/feedback", {
      method: "POST", keepalive: true, headers: api.headers(),
      body: JSON.stringify({events: batch})
    }).then(function (reply) {
      // a refusal is final, all else is tried again
      var done = reply.ok || (reply.status >= 400 && reply.status < 500 && reply.status !== 429);
      if (!done) throw new Error(reply.status);
      forget(new Set(batch.map(function (e) { return e.id; })));
      sending = false; wait = 1000;
      flush();
    }).catch(function () {
      sending = false;
      setTimeout(flush, wait);
      wait = Math.min(wait * 2, 60000);
    });
  }
  function beacon() {
    // the page goes away: what is sent twice is stored once, so nothing is forgotten here
    var queue = load();
    for (var i = 0; i < queue.length; i += BATCH) {
      navigator.sendBeacon(base + "/v1/feedback",
        JSON.stringify({events: queue.slice(i, i + BATCH)}));
    }
  }

  function button(text, label, act) {
    var b = document.createElement("button");
    b.type = "button"; b.append(text); b.title = label;
    b.setAttribute("aria-label", label); b.addEventListener("click", act);
    return b;
  }
  function icon(down) {
    var space = "http://www.w3.org/2000/svg";
    var svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
    svg.setAttribute("viewBox", "0 0 24 24"); svg.setAttribute("width", "16");
    svg.setAttribute("height", "16"); svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", "M3 10h4v11H3zM9 21V10l4-8 2 1v6h6l-2 12z");
    path.setAttribute("fill", "currentColor");
    if (down) path.setAttribute("transform", "rotate(180 12 12)");
    svg.append(path);
    return svg;
  }
  function bar(id) {
    var box = document.createElement("div"), form = document.createElement("form");
    var input = document.createElement("input"), thanks = document.createElement("span");
    box.className = "ratchet-bar"; thanks.setAttribute("role", "status");
    input.placeholder = "What was wrong, or right?"; input.maxLength = 10000;
    input.setAttribute("aria-label", "Comment");
    form.hidden = true; form.append(input, button("Send", "Send comment", null));
    form.lastChild.type = "submit";
    function thumb(value) {
      return function () {
        record(id, "thumbs", value);
        up.setAttribute("aria-pressed", value === "up");
        down.setAttribute("aria-pressed", value === "down");
        form.hidden = false; thanks.textContent = "Thank you"; input.focus();
      };
    }
    var up = button(icon(false), "Good answer", thumb("up"));
    var down = button(icon(true), "Bad answer", thumb("down"));
    form.addEventListener("submit", function (e) {
      e.preventDefault();
      if (input.value.trim()) record(id, "comment", input.value);
      input.value = ""; form.hidden = true; thanks.textContent = "Thank you for the comment";
    });
    box.append(up, down, form, thanks);
    return box;
  }

  var api = {
    /** Headers of feedback requests; text/plain needs no preflight. */
    headers: function () { return {"content-type": "text/plain"}; },
    /** Watch an answer: {id, token, bar: false to add no thumbs}. Returns the bar. */
    answer: function (element, options) {
      if (answers.has(options.id)) return answers.get(options.id).bar;
      if (began === null) began = Date.now();
      latest = options.id; ended = false;
      var added = options.bar === false ? null : bar(options.id);
      answers.set(options.id, {token: options.token, element: element, bar: added});
      if (added) element.after(added);
      if (tracks) element.addEventListener("copy", function () { api.copied(options.id); });
      return added;
    },
    /** The answer was copied, also by a button of the page's own. */
    copied: function (id) {
      var answer = answers.get(id);
      if (!tracks || !answer || answer.copied) return;
      answer.copied = true;
      record(id, "copy", true);
    },
    /** The user asked for another answer in place of this one. */
    regenerated: function (id) { if (tracks) record(id, "regenerate", true); },
    /** The user went on: the answer was not asked for again. */
    asked: function () {
      if (tracks && latest) record(latest, "regenerate", false);
    },
    /** The user says whether the task is done. */
    completed: function (id, done) { record(id, "task_completed", done); },
    stars: function (id, count) { record(id, "stars", count); },
    correct: function (id, text) { record(id, "correction", text); },
    /** The session is over; called by itself when the page is left. */
    end: function () {
      if (tracks && latest && !ended) {
        ended = true;
        var event = {id: uid(), interaction_id: latest, kind: "session_end",
                     value: Math.round((Date.now() - began) / 100) / 10,
                     created_at: new Date().toISOString()};
        var token = answers.get(latest).token;
        if (token) event.token = token;
        save(load().concat([event]));
      }
      beacon();
    },
    pending: function () { return load().length; },
    tracks: tracks
  };
  function find() {
    document.querySelectorAll("[data-ratchet-id]").forEach(function (e) {
      api.answer(e, {id: e.dataset.ratchetId, token: e.dataset.ratchetToken});
    });
  }
  window.ratchet = api;
  window.addEventListener("pagehide", api.end);
  window.addEventListener("online", flush);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", find);
  else find();
  flush();
})();
