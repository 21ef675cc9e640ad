// The page of the web listener: who is signed in, and the ways in. The session is in a cookie that this does not see.
"use strict";

const told = {
  "signed-in": "",
  linked: "Your account is linked.",
};

function say(text) {
  document.getElementById("told").textContent = text;
}

function show(id, yes) {
  document.getElementById(id).hidden = !yes;
}

function row(list, name, value) {
  const term = document.createElement("dt");
  term.textContent = name;
  const what = document.createElement("dd");
  what.textContent = value;
  list.append(term, what);
}

async function ask(path, options) {
  const answer = await fetch(path, { ...options, headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw body;
  return body;
}

async function ways() {
  const list = document.getElementById("ways");
  for (const way of (await ask("/v1/sign-in/ways")).ways.filter((way) => way.factor === "sso")) {
    const link = document.createElement("a");
    link.href = `/v1/sso/${way.issuer}/begin`;
    link.textContent = `Sign in with ${way.name}`;
    const item = document.createElement("li");
    item.append(link);
    list.append(item);
  }
  if (!list.childElementCount) say("No identity provider is set up. Use zixt, or the API.");
  show("out", true);
}

async function main() {
  const [what, why] = location.hash.slice(1).split("=");
  history.replaceState(null, "", location.pathname);
  if (what === "failed") say(`The sign-in was not taken (${why}).`);
  else if (what === "need") say(`More is needed than your identity provider's word: ${why}. Sign in with zixt.`);
  else say(told[what] ?? "");
  try {
    const me = await ask("/v1/me");
    const list = document.getElementById("me");
    row(list, "Name", me.name ?? me.account);
    row(list, "Roles", me.roles.join(", "));
    row(list, "Session", me.session);
    for (const link of me.links) row(list, "Linked to", link.name ?? link.issuer);
    show("in", true);
  } catch {
    await ways();
  }
}

document.getElementById("leave").addEventListener("click", async () => {
  await ask("/v1/me/sign-out", { method: "POST" });
  location.replace("/");
});
main().catch((problem) => say(problem.title ?? "The appliance does not answer."));
