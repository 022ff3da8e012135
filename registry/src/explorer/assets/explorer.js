// Pages work without this: it searches while one types, and copies.
"use strict";

const WAIT = 150;

for (const input of document.querySelectorAll("input[data-live]")) {
  const form = input.form;
  let timer, asked;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const url = new URL(form.action);
      url.search = new URLSearchParams(new FormData(form));
      asked?.abort();
      asked = new AbortController();
      try {
        const answer = await fetch(url, { signal: asked.signal, credentials: "same-origin" });
        if (!answer.ok) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const found = page.getElementById(input.dataset.live);
        if (found) document.getElementById(input.dataset.live).replaceChildren(...found.childNodes);
        history.replaceState(null, "", url);
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      }
    }, WAIT);
  });
}

if (navigator.clipboard) {
  for (const code of document.querySelectorAll("code[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    code.after(button);
  }
}
