// the terminal has the keys from the beginning, without a click
const focus = () => document.querySelector(".xterm-helper-textarea")?.focus();
new MutationObserver(focus).observe(document, { childList: true, subtree: true });
window.addEventListener("focus", focus);
