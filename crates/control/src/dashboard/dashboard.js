// Asks for what is new every few seconds and changes what differs, so that nothing flickers and what is open stays open.
"use strict";
(() => {
    const EVERY_MS = 5000, PATIENCE_MS = 4000;
    const silence = document.getElementById("silence");
    let answered = Date.now(), timer, asking = false;

    // Makes `old` like `fresh`, touching only what is different.
    function become(old, fresh) {
        if (old.isEqualNode(fresh)) return;
        if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
            old.replaceWith(fresh);
            return;
        }
        if (old.nodeType !== Node.ELEMENT_NODE) {
            old.nodeValue = fresh.nodeValue;
            return;
        }
        // Whether it is open is the reader's business.
        for (const { name } of [...old.attributes])
            if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
        for (const { name, value } of fresh.attributes)
            if (old.getAttribute(name) !== value) old.setAttribute(name, value);
        const before = [...old.childNodes], after = [...fresh.childNodes];
        after.forEach((node, at) => before[at] ? become(before[at], node) : old.append(node));
        before.slice(after.length).forEach(node => node.remove());
    }

    async function refresh() {
        clearTimeout(timer);
        if (document.hidden || asking) return;
        asking = true;
        try {
            const answer = await fetch("/fragment" + location.search, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
            if (!answer.ok) throw new Error(answer.statusText);
            const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
            const live = document.getElementById("live"), fresh = parsed.getElementById("live");
            if (!fresh) throw new Error("something else answers");
            answered = Date.now();
            if (fresh.dataset.version !== live.dataset.version) location.reload();
            become(live, fresh);
        } catch {
            // What stands there is old; `tell` says how old.
        }
        asking = false;
        tell();
        clearTimeout(timer);
        timer = setTimeout(refresh, EVERY_MS);
    }

    // Says so when the daemon is silent for longer than it may.
    function tell() {
        const ms = Date.now() - answered, silent = !document.hidden && ms > 2 * EVERY_MS - 500;
        silence.hidden = !silent;
        document.getElementById("live").classList.toggle("silent", silent);
        if (silent) silence.lastElementChild.textContent = `since ${Math.round(ms / 1000)} s. What is below was then.`;
    }

    document.addEventListener("visibilitychange", () => {
        if (document.hidden) return;
        answered = Date.now();
        refresh();
    });
    setInterval(tell, 1000);
    timer = setTimeout(refresh, EVERY_MS);
})();
