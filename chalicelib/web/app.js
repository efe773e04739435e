// The frame around the pages: routing, sign-in, and the banner for an API that does not answer.

import { Problem, token } from "./api.js";
import { announce, el, setText } from "./dom.js";
import { lanePage } from "./lane.js";
import { overviewPage } from "./overview.js";
import { Refresher } from "./refresh.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const pulse = document.getElementById("pulse");
let page = null;
let refresher = null;

function show() {
  leave();
  const [, kind, rest] = location.hash.match(/^#\/(lane)\/(.+)$/) ?? [];
  const user = kind && decoded(rest);
  page = user ? lanePage(user, frame) : overviewPage(frame);
  document.title = user ? `${user} · Paceline` : "Paceline";
  main.replaceChildren(page.node);
  refresher = new Refresher(page.refresh, { onError, onGood });
  showWho();
}

function leave() {
  refresher?.stop();
  page?.leave();
  refresher = page = null;
  hideBanner();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Services of the frame for its pages. */
const frame = {
  refresh: () => refresher?.now(),
  signIn,
  /** Runs a request that the user started; shows its error beside the button. */
  async ask(work, status, done) {
    setText(status, "");
    status.classList.remove("bad");
    try {
      const answer = await work();
      const text = typeof done === "function" ? done(answer) : done;
      setText(status, text);
      announce(text);
      refresher?.now();
      return answer;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) return void signIn(error.message);
      status.classList.add("bad");
      setText(status, error.message);
      announce(error.message);
      return undefined;
    }
  },
};

function onGood() {
  if (!banner.hidden) announce("The API answers again");
  hideBanner();
  pulse.hidden = false;
  pulse.className = "pulse good";
  setText(pulse, "live");
}

function onError(error, wait) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) {
    signIn(token.get() ? error.message : "");
    return false;
  }
  if (error.status === 403) {
    const own = token.subject();
    if (own && page.isOverview) {
      location.replace(`#/lane/${encodeURIComponent(own)}`);
      return false;
    }
    main.replaceChildren(message("Access denied", error.message));
    return false;
  }
  pulse.hidden = false;
  pulse.className = "pulse bad";
  setText(pulse, "not live");
  const reason = error.status === 0 || error.status >= 500 ? "The API does not answer" : error.message;
  setText(document.getElementById("banner-text"), `${reason}. The page shows its last state.`);
  setText(document.getElementById("banner-wait"), `Next try in ${Math.round(wait / 1000)} s.`);
  banner.hidden = false;
  return true;
}

function hideBanner() {
  banner.hidden = true;
}

function message(title, text) {
  return el("section", { class: "card message" }, el("h1", { text: title }), el("p", { text }));
}

/** Asks for a token; a refused one is deleted. */
function signIn(reason = "") {
  leave();
  token.set("");
  pulse.hidden = true;
  const field = el("textarea", { id: "token", rows: "4", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "token-hint" });
  const form = el(
    "form",
    { class: "card message", id: "sign-in" },
    el("h1", { text: "Sign in" }),
    el("p", { id: "token-hint", text: "This deployment requires a bearer token. It stays in this tab and is deleted when the tab closes." }),
    el("label", { for: "token", text: "Token" }),
    field,
    el("p", { class: "status bad", role: "alert", text: reason }),
    el("button", { type: "submit", class: "main", text: "Sign in" }),
  );
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(field.value.replace(/^Bearer\s+/i, "").replace(/\s+/g, ""));
    show();
  });
  main.replaceChildren(form);
  document.title = "Sign in · Paceline";
  showWho();
  field.focus();
}

function showWho() {
  const userName = document.getElementById("user");
  const button = document.getElementById("sign");
  const isIn = Boolean(token.get());
  userName.hidden = !token.subject();
  setText(userName, token.subject());
  button.hidden = !isIn;
}

document.getElementById("sign").addEventListener("click", () => signIn());
document.getElementById("banner-retry").addEventListener("click", () => refresher?.now());
document.getElementById("skip").addEventListener("click", () => main.focus());
addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
show();
