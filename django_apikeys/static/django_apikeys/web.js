/* What script adds to pages that work without it: copying, dialogs, search while typing.

   Plain, deferred (it is a module), and with nothing inline: a page says by data-apikeys-… what is where. */

const WAIT_MS = 250; // from the last letter to the search
const SAID_MS = 2000; // how long a button says "Copied"
const SENT_MS = 10_000; // how long a form that was sent is not sent again
// A secret that was pasted to find its key: what is behind the public id must not get into a URL,
// and so into a log. Of what is typed a name may look like the beginning of one.
const SECRET = /^\s*[a-z0-9]+_[a-z0-9]+_([0-9A-Za-z]{12})_[0-9A-Za-z]{16,}\s*$/;

const texts = document.querySelector("[data-apikeys-status]");

/* Tell those who do not see it. The same text twice is two events. */
function say(text) {
  if (!texts || !text) return;
  texts.textContent = "";
  requestAnimationFrame(() => { texts.textContent = text; });
}

/* Show the buttons within `root` that only script can answer. */
function show(root) {
  const buttons = "[data-apikeys-copy], [data-apikeys-read-only], [data-apikeys-address]";
  for (const button of root.querySelectorAll(buttons)) button.hidden = false;
}

/* Return the page at `url` as a document that runs nothing. Rejects where none comes. */
async function fetched(url, options = {}) {
  const response = await fetch(url, { credentials: "same-origin", ...options });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return { page, url: response.url };
}

// --- Copying -------------------------------------------------------------

async function copy(button) {
  const source = document.getElementById(button.dataset.apikeysCopy);
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS there is no clipboard, and it may be forbidden.
    select(source);
    if (!document.execCommand("copy")) return say(texts.dataset.notCopied);
  }
  tell(button, texts.dataset.copied);
}

function select(source) {
  if (source.select) return source.select();
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

/* Let `button` say `text` for a moment. */
function tell(button, text) {
  say(text);
  const label = (button.dataset.apikeysLabel ??= button.textContent);
  button.textContent = text;
  setTimeout(() => { button.textContent = label; }, SAID_MS);
}

/* Copy the secret of a key that is kept, without showing it; where more is asked, ask it. */
async function copyKept(link) {
  const asking = await fetched(link.href);
  const form = asking.page.querySelector("[data-apikeys-dialog-body] form");
  if (!form || form.elements.namedItem("password")) return fill(asking);
  const secret = fetched(link.href, { method: "POST", body: new FormData(form) }).then(secretOf);
  // A browser lets in what a click has begun, so it is handed over as a promise.
  const item = new ClipboardItem({ "text/plain": secret.then((text) => new Blob([text], { type: "text/plain" })) });
  await navigator.clipboard.write([item]);
  tell(link, texts.dataset.copied);
}

function secretOf({ page }) {
  const source = page.querySelector("[data-apikeys-secret] [data-apikeys-select]");
  if (!source) throw new Error("There is no secret on this page.");
  return source.value;
}

// --- Dialogs: what a link's page asks, without leaving this one -----------

let dialog;

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
    document.querySelector(".apikeys").append(dialog);
  }
  dialog.replaceChildren(document.adoptNode(body));
  show(dialog);
  if (!dialog.open) dialog.showModal();
  heading.focus();
}

// --- The list: search while typing ----------------------------------------

function live(form) {
  let running;
  let timer;

  async function apply() {
    clearTimeout(timer);
    running?.abort();
    running = new AbortController();
    const url = new URL(location.pathname, location.href);
    for (const [name, value] of new FormData(form)) if (value) url.searchParams.set(name, value);
    const answer = await fetched(url, { signal: running.signal });
    const parts = document.querySelectorAll("[data-apikeys-live]");
    const fresh = [...parts].map((part) => answer.page.querySelector(`[data-apikeys-live="${part.dataset.apikeysLive}"]`));
    // Another page: a login, or the list without filters, which has no key at all.
    if (fresh.includes(null)) return location.assign(url);
    parts.forEach((part, index) => part.replaceChildren(...fresh[index].childNodes));
    history.replaceState(null, "", answer.url);
    show(document);
    say(document.querySelector("[data-apikeys-found]")?.textContent.trim());
  }

  form.querySelector("[type=submit]").hidden = true;
  const start = () => apply().catch((error) => {
    if (error.name !== "AbortError") form.submit();
  });
  form.addEventListener("input", ({ target }) => {
    if (target.type !== "search") return;
    target.value = target.value.replace(SECRET, "$1");
    clearTimeout(timer);
    timer = setTimeout(start, WAIT_MS);
  });
  form.addEventListener("change", start);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
}

// --- The form of a key ----------------------------------------------------

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

// --- What is pressed, sent and left ---------------------------------------

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
    const begun = "apikeysKept" in dataset ? copyKept(target) : fetched(target.href).then(fill);
    begun.catch(() => location.assign(target.href));
  }
});

document.addEventListener("focusin", ({ target }) => {
  if ("apikeysSelect" in target.dataset) target.select();
});

// A second click would be answered with "created already", in place of the secret.
const sent = new WeakMap();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || !form.closest(".apikeys")) return;
  if (event.timeStamp - (sent.get(form) ?? -SENT_MS) < SENT_MS) event.preventDefault();
  else sent.set(form, event.timeStamp);
});

// A browser may keep the page as it is, to come back to. The secret is not to be there.
addEventListener("pagehide", () => {
  for (const secret of document.querySelectorAll("[data-apikeys-secret]")) secret.replaceChildren();
});
addEventListener("pageshow", ({ persisted }) => {
  const secret = document.querySelector("[data-apikeys-secret]");
  if (persisted && secret) location.replace(secret.dataset.apikeysSecret);
});

show(document);
for (const form of document.querySelectorAll("[data-apikeys-filters]")) live(form);
for (const form of document.querySelectorAll("[data-apikeys-form]")) assist(form);
