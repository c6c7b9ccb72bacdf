/* A small chat over /v1/chat/completions. All text goes in as text, never as markup. */
(function () {
  "use strict";
  var $ = function (id) { return document.getElementById(id); };
  var turns = [], busy = false;
  var user = stored("ratchet.user"), session = "web-" + random();

  function random() {
    return Array.from(crypto.getRandomValues(new Uint8Array(9)),
      function (x) { return x.toString(16).padStart(2, "0"); }).join("");
  }
  function stored(name) {
    try {
      var value = localStorage.getItem(name) || "web-" + random();
      localStorage.setItem(name, value);
      return value;
    } catch (e) { return "web-" + random(); }
  }
  function headers() {
    var key = $("key").value;
    return Object.assign({"content-type": "application/json"},
      key ? {authorization: "Bearer " + key} : {});
  }
  function element(kind, className, text) {
    var e = document.createElement(kind);
    e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  }
  function show(role, text) {
    if ($("empty")) $("empty").remove();
    var turn = element("div", "turn " + role), body = element("div", "text", text);
    turn.append(body);
    $("turns").append(turn);
    turn.scrollIntoView({block: "end"});
    return {turn: turn, body: body};
  }
  function tools(shown, id, text) {
    var box = element("div", "tools"), copy = element("button", "", "Copy");
    var again = element("button", "", "Regenerate");
    copy.type = again.type = "button";
    copy.addEventListener("click", function () {
      if (navigator.clipboard) navigator.clipboard.writeText(text).catch(function () {});
      window.ratchet.copied(id);
      copy.textContent = "Copied";
    });
    again.addEventListener("click", function () {
      if (busy) return;
      window.ratchet.regenerated(id);
      shown.turn.classList.add("replaced");
      again.remove();
      turns.pop();
      answer();
    });
    document.querySelectorAll(".tools .again").forEach(function (b) { b.remove(); });
    again.className = "again";
    box.append(copy, again);
    shown.turn.append(box);
  }
  async function answer() {
    busy = true; $("ask").querySelector("button").disabled = true;
    var shown = show("assistant", ""), id = null, token = null, text = "";
    try {
      var reply = await fetch("/v1/chat/completions", {
        method: "POST", headers: headers(),
        body: JSON.stringify({model: $("model").value || "default", messages: turns, stream: true,
                              user: user, metadata: {session_id: session}})
      });
      if (!reply.ok) throw new Error((await reply.json()).error.message);
      var reader = reply.body.getReader(), decoder = new TextDecoder(), rest = "", over = false;
      while (!over) {
        var piece = await reader.read();
        rest += decoder.decode(piece.value || new Uint8Array(), {stream: !piece.done});
        var lines = rest.split("\n\n");
        rest = lines.pop();
        for (var line of lines) {
          if (line === "data: [DONE]") { over = true; break; }
          var chunk = JSON.parse(line.slice(6));
          if (chunk.error) throw new Error(chunk.error.message);
          id = chunk.id;
          if (chunk.ratchet) token = chunk.ratchet.token;
          var delta = chunk.choices[0] && chunk.choices[0].delta;
          if (delta && delta.content) { text += delta.content; shown.body.textContent = text; }
        }
        if (piece.done && !over) throw new Error("the answer broke off; try again");
      }
      turns.push({role: "assistant", content: text});
      window.ratchet.answer(shown.body, {id: id, token: token});
      tools(shown, id, text);
    } catch (error) {
      shown.turn.classList.add("failed");
      shown.body.textContent = error.message;
      if (/key/.test(error.message)) $("key").hidden = false;
    }
    busy = false; $("ask").querySelector("button").disabled = false;
    shown.turn.scrollIntoView({block: "end"});
  }
  $("ask").addEventListener("submit", function (e) {
    e.preventDefault();
    var text = $("text").value;
    if (busy || !text.trim()) return;
    window.ratchet.asked();
    // an answer that failed leaves a question without one: it is asked anew
    if (turns.length && turns[turns.length - 1].role === "user") turns.pop();
    turns.push({role: "user", content: text});
    show("user", text);
    $("text").value = ""; $("text").style.height = "";
    answer();
  });
  $("text").addEventListener("keydown", function (e) {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); $("ask").requestSubmit(); }
  });
  $("text").addEventListener("input", function () {
    this.style.height = ""; this.style.height = this.scrollHeight + "px";
  });
  async function models() {
    try {
      var reply = await fetch("/v1/models", {headers: headers()});
      if (reply.status === 401) { $("key").hidden = false; return; }
      var names = ["default"].concat((await reply.json()).data.map(function (m) { return m.id; }));
      $("model").replaceChildren.apply($("model"), names.map(function (name) {
        var option = element("option", "", name);
        option.value = name;
        return option;
      }));
    } catch (e) { /* the chat says what is wrong when it is used */ }
  }
  $("key").addEventListener("change", models);
  models();
})();
