// Asks the API of this voter again and again, and shows what it says. All text is set as text.
"use strict";

const EVERY_MS = 2000;
const CELLS_MAX = 50;
const TOKEN = "once-token";

const at = (id) => document.getElementById(id);

async function ask(path) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers });
  const told = await response.json();
  if (!response.ok) {
    const error = new Error(told.error.message);
    error.needsToken = response.status === 401;
    throw error;
  }
  return told;
}

// A cell is a text, or a text with a class.
function fill(id, rows) {
  const body = rows.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const [text, how] = Array.isArray(cell) ? cell : [cell, ""];
      const column = document.createElement("td");
      column.textContent = text ?? "-";
      column.className = how;
      row.append(column);
    }
    return row;
  });
  at(id).replaceChildren(...body);
}

const HOW = {
  succeeded: "good", SUCCESS: "good",
  failed: "bad", FAILED: "bad",
  abandoned: "warn", ABANDONED: "warn", MISSED: "warn", RETRYING: "warn",
};
const shown = (state) => [state, HOW[state] ?? ""];

function showStatus(status) {
  at("cluster").textContent = status.cluster;
  fill("nodes", status.voters.map((voter) => [
    voter.name + (voter.nodeId === status.nodeId ? " (this one)" : ""),
    voter.address,
    voter.linked ? ["linked", "good"] : [voter.trouble ?? "not linked", "bad"],
  ]));
  fill("cells", status.groups.slice(0, CELLS_MAX).map((group) => [
    group.group, group.kind, group.version, group.leader,
    group.trouble ? [group.trouble, "bad"]
      : [group.awake ? "awake" : group.decided ? "decided, asleep" : "asleep"],
  ]));
  at("cells-more").textContent = count(status.groupsTotal, CELLS_MAX);
}

function showTasks(told) {
  fill("tasks", told.tasks.map(({ metadata, status }) => [
    metadata.name, shown(status.state), status.executor, status.executedAt, status.attempt, status.error,
  ]));
  at("tasks-more").textContent = all(told, told.tasks);
}

function showJobs(told) {
  fill("jobs", told.jobs.map((job) => {
    const last = job.last ?? {};
    return [
      job.id, job.state, job.type, `${job.schedule} ${job.timezone}`, job.api ?? job.command.join(" "),
      shown(last.status), last.executionTime, last.worker, last.error,
    ];
  }));
  at("jobs-more").textContent = all(told, told.jobs);
}

const all = (told, shown) => (told.next === null ? `${shown.length}` : `the first ${shown.length}`);
const count = (total, most) => (total > most ? `${most} of ${total}` : `${total}`);

async function look() {
  const namespace = at("namespace").value;
  const of = namespace ? `?namespace=${encodeURIComponent(namespace)}` : "";
  const parts = [["api/status", showStatus], ["api/tasks" + of, showTasks], ["api/jobs" + of, showJobs]];
  const told = await Promise.allSettled(parts.map(async ([path, show]) => show(await ask(path))));
  const errors = told.filter((one) => one.status === "rejected").map((one) => one.reason);
  at("ask").hidden = !errors.some((error) => error.needsToken);
  at("trouble").textContent = errors.length ? errors[0].message : "";
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value);
  at("token").value = "";
  look();
});
at("namespace").addEventListener("change", look);

// One look at a time, and none that nobody sees.
async function go() {
  if (!document.hidden) await look();
  setTimeout(go, EVERY_MS);
}
go();
