/* What script adds to pages that work without it: copying, dialogs, search while typing.

   Plain and deferred, with nothing inline: a page says by data-apikeys-… what is where. No
   module: a browser takes those of another host, as statics may be, only where that allows it. */
(() => {
  "use strict";

  const WAIT_MS = 250; // from the last letter to the search
  const SAID_MS = 2000; // how long a button says "Copied"
  const SENT_MS = 10_000; // how long a form that was sent is not sent again
  // A secret that was pasted to find its key: what is behind the public id must not get into a
  // URL, and so into a log. Of what is typed a name may look like the beginning of one.
  const SECRET = /\b[a-z0-9]+_[a-z0-9]+_([0-9A-Za-z]{12})_[0-9A-Za-z]{16,}/;

  const texts = document.querySelector("[data-apikeys-status]");

  /* Tell those who do not see it. The same text twice is two events. */
  function say(text) {
    if (!texts || !text) return;
    texts.textContent = "";
    requestAnimationFrame(() => { texts.textContent = text; });
  }

  /* Let `button` say `text` for a moment. */
  function tell(button, text) {
    say(text);
    const label = (button.dataset.apikeysLabel ??= button.textContent);
    button.textContent = text;
    setTimeout(() => { button.textContent = label; }, SAID_MS);
  }

  /* Show what is within `root` and only script can answer; say which links open a dialog. */
  function show(root) {
    const buttons = "[data-apikeys-copy], [data-apikeys-read-only], [data-apikeys-address]";
    for (const button of root.querySelectorAll(buttons)) button.hidden = false;
    for (const link of root.querySelectorAll("[data-apikeys-dialog]")) link.setAttribute("aria-haspopup", "dialog");
  }

  /* Return the page at `url` as a document that runs nothing. Rejects where none comes. */
  async function fetched(url, options = {}) {
    const response = await fetch(url, { credentials: "same-origin", ...options });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return { page, url: response.url };
  }

  // --- Copying ---------------------------------------------------------------

  async function copy(button) {
    const source = document.getElementById(button.dataset.apikeysCopy);
    const text = source.value ?? source.textContent;
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without HTTPS there is no clipboard, and it may be forbidden.
      select(source);
      isCopied = document.execCommand("copy");
    }
    tell(button, isCopied ? texts.dataset.copied : texts.dataset.notCopied);
  }

  function select(source) {
    if (source.select) return source.select();
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }

  /* Copy the secret of a key that is kept, without showing it; where more is asked, ask it. */
  async function copyKept(link) {
    // That it was shown is an event: nothing is asked for where nobody would get it.
    if (!globalThis.ClipboardItem || !navigator.clipboard?.write) throw new Error("No clipboard.");
    const stop = new AbortController();
    let asking;

    async function kept() {
      const found = await fetched(link.href, { signal: stop.signal });
      const form = found.page.querySelector("[data-apikeys-dialog-body] form");
      if (!form || form.elements.namedItem("password")) {
        asking = found;
        throw new Error("More is asked.");
      }
      const options = { method: "POST", body: new FormData(form), signal: stop.signal };
      const { page } = await fetched(link.href, options);
      const secret = page.querySelector("[data-apikeys-secret] [data-apikeys-select]").value;
      return new Blob([secret], { type: "text/plain" });
    }

    try {
      // A browser lets in what a click has begun: a promise, handed over at once.
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": kept() })]);
    } catch (error) {
      stop.abort();
      if (asking) return fill(asking);
      throw error;
    }
    tell(link, texts.dataset.copied);
  }

  // --- Dialogs: what a link's page asks, without leaving this one -------------

  let dialog;
  let asks = new AbortController();

  /* Ask in a dialog what the page of `link` does; of several links, that of the last one. */
  async function ask(link) {
    asks.abort();
    const { signal } = (asks = new AbortController());
    const found = await fetched(link.href, { signal });
    if (!signal.aborted) fill(found);
  }

  /* Show what the page asks in a dialog; go there where it asks nothing: a login, say. */
  function fill({ page, url }) {
    const body = page.querySelector("[data-apikeys-dialog-body]");
    if (!body) return location.assign(url);
    // Here they would be taken from the URL of this page.
    for (const link of body.querySelectorAll("a[href]")) link.href = new URL(link.getAttribute("href"), url);
    for (const form of body.querySelectorAll("form")) form.action = new URL(form.getAttribute("action") ?? "", url);
    const heading = body.querySelector("h1");
    heading.id = "apikeys-dialog-title";
    heading.tabIndex = -1;
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.className = "apikeys-asks";
      dialog.setAttribute("aria-labelledby", heading.id);
      dialog.addEventListener("close", () => asks.abort());
      document.querySelector(".apikeys").append(dialog);
    }
    dialog.replaceChildren(document.adoptNode(body));
    show(dialog);
    if (!dialog.open) dialog.showModal();
    heading.focus();
  }

  // --- The list: search while typing ------------------------------------------

  function live(form) {
    let running;
    let timer;
    let applied = null; // a browser may have put back what was typed, and not what was found

    /* What is asked for, without what is asked for by saying nothing. */
    function query() {
      const asked = new URLSearchParams();
      for (const field of form.elements) {
        if (field.name && field.value && !(field.selectedIndex === 0)) asked.set(field.name, field.value);
      }
      return asked.toString();
    }

    async function apply() {
      clearTimeout(timer);
      const asked = query();
      if (asked === applied) return;
      running?.abort();
      running = new AbortController();
      applied = asked;
      const url = `${location.pathname}${asked && "?"}${asked}`;
      try {
        const answer = await fetched(url, { signal: running.signal });
        const parts = [...document.querySelectorAll("[data-apikeys-live]")];
        const fresh = parts.map((part) => answer.page.querySelector(`[data-apikeys-live="${part.dataset.apikeysLive}"]`));
        // Another page: a login, say.
        if (fresh.includes(null)) return location.assign(url);
        parts.forEach((part, index) => replace(part, fresh[index]));
        history.replaceState(null, "", answer.url);
        say(document.querySelector("[data-apikeys-found]")?.textContent.trim());
      } catch (error) {
        // Not by sending the form: a policy forbids it to end at a login of another host.
        if (error.name !== "AbortError") location.assign(url);
      }
    }

    form.querySelector("[type=submit]").hidden = true;
    form.addEventListener("input", ({ target }) => {
      if (target.type !== "search") return;
      const secret = SECRET.exec(target.value);
      if (secret) target.value = secret[1];
      clearTimeout(timer);
      timer = setTimeout(apply, WAIT_MS);
    });
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply();
    });
  }

  /* Put what is in `fresh` in place of what is in `part`; the focus stays where it was. */
  function replace(part, fresh) {
    const active = part.contains(document.activeElement) ? document.activeElement : null;
    const { apikeysCopy } = active?.dataset ?? {};
    const href = active?.getAttribute("href");
    part.replaceChildren(...fresh.childNodes);
    show(part);
    const same = apikeysCopy ? `[data-apikeys-copy="${CSS.escape(apikeysCopy)}"]` : href && `a[href="${CSS.escape(href)}"]`;
    if (same) part.querySelector(same)?.focus();
  }

  // --- The form of a key --------------------------------------------------------

  function assist(form) {
    const { environment, expires, allowed_ips: addresses } = form.elements;
    const date = form.querySelector("[data-apikeys-date]");
    const hint = form.querySelector("[data-apikeys-open]");

    function update() {
      if (date) {
        const input = date.querySelector("input");
        // What is typed stays, and is not sent; what is said to be wrong stays in sight.
        input.disabled = expires.value !== "date";
        date.hidden = input.disabled && !date.querySelector(".errorlist");
      }
      if (hint) {
        const isLive = !environment || environment.value === hint.dataset.apikeysOpen;
        hint.hidden = !isLive || addresses.value.trim() !== "";
      }
    }

    form.addEventListener("input", update);
    addEventListener("pageshow", update); // a browser may have put back what was typed
    update();
  }

  function readOnly(button) {
    const scopes = button.closest("[data-apikeys-scopes]");
    for (const box of scopes.querySelectorAll("input[type=checkbox]")) {
      box.checked = box.value.endsWith(":read") && !box.closest("[data-apikeys-reserved]");
    }
    say(button.dataset.apikeysSaid);
  }

  function addAddress(button) {
    const field = document.getElementById(button.dataset.apikeysInto);
    const lines = field.value.split(/\s+/).filter(Boolean);
    if (!lines.includes(button.dataset.apikeysAddress)) lines.push(button.dataset.apikeysAddress);
    field.value = lines.join("\n");
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  }

  // --- What is pressed, sent and left ---------------------------------------------

  /* Follow `link` by `way`, once at a time; where that fails, as without script. */
  async function follow(link, way) {
    if (link.hasAttribute("aria-busy")) return;
    link.setAttribute("aria-busy", "true");
    try {
      await way(link);
    } catch (error) {
      if (error.name !== "AbortError") location.assign(link.href);
    } finally {
      link.removeAttribute("aria-busy");
    }
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("a, button");
    // With a modifier a link opens elsewhere, as ever.
    if (!target || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const { dataset } = target;
    if ("apikeysCopy" in dataset) copy(target);
    else if ("apikeysReadOnly" in dataset) readOnly(target);
    else if ("apikeysAddress" in dataset) addAddress(target);
    else if ("apikeysCancel" in dataset && dialog?.open) {
      event.preventDefault();
      dialog.close();
    } else if ("apikeysDialog" in dataset || "apikeysKept" in dataset) {
      event.preventDefault();
      follow(target, "apikeysKept" in dataset ? copyKept : ask);
    }
  });

  document.addEventListener("focusin", ({ target }) => {
    if ("apikeysSelect" in target.dataset) target.select();
  });

  // A second click would be answered with "created already", in place of the secret.
  const sent = new Map();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || !form.closest(".apikeys")) return;
    if (sent.has(form)) {
      event.preventDefault();
      return say(texts?.dataset.sent);
    }
    event.submitter?.setAttribute("aria-disabled", "true");
    sent.set(form, event.submitter);
    setTimeout(free, SENT_MS, form);
  });

  /* Let `form` be sent once more. */
  function free(form) {
    sent.get(form)?.removeAttribute("aria-disabled");
    sent.delete(form);
  }

  // A browser may keep the page as it is, to come back to. The secret is not to be there.
  addEventListener("pagehide", () => {
    for (const secret of document.querySelectorAll("[data-apikeys-secret]")) secret.replaceChildren();
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    [...sent.keys()].forEach(free);
    const secret = document.querySelector("[data-apikeys-secret]");
    if (secret) location.replace(secret.dataset.apikeysSecret);
  });

  show(document);
  for (const form of document.querySelectorAll("[data-apikeys-filters]")) live(form);
  for (const form of document.querySelectorAll("[data-apikeys-form]")) assist(form);
})();
