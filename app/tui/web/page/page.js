// The terminal has the keys from the beginning, without a click. The session learns of the focus by an event, which
// would be lost before the socket is open: wait until the session has drawn something.
const started = () => document.body?.classList.contains("-first-byte");
const focus = () => document.querySelector(".xterm-helper-textarea")?.focus();
const watcher = new MutationObserver(() => {
  if (started()) {
    watcher.disconnect();
    focus();
  }
});
watcher.observe(document, { attributes: true, childList: true, subtree: true });
window.addEventListener("focus", () => started() && focus());
