// Copies the secret, and empties the page when it is left: going back must not show it again.
(() => {
  const field = document.querySelector("[data-apikeys-secret]");
  const button = document.querySelector("[data-apikeys-copy]");
  const copied = document.querySelector("[data-apikeys-copied]");
  if (navigator.clipboard) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(field.value);
      copied.hidden = false;
    });
  }
  field.addEventListener("focus", () => field.select());
  window.addEventListener("pagehide", () => { field.value = ""; });
})();
