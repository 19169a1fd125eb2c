// Dialogs that change torrents: limits, labels, trackers, folder, names.

import { el } from "../common/dom.js";
import { ask } from "../common/live.js";
import { edit, editSettings, namesOf, pathOf } from "./actions.js";
import { check, field, formDialog, numberField, rateField, select, text, tiersAsText, tiersOf, wordsOf } from "./dialogs.js";
import { folderField } from "./folders.js";

const HOUR = 3600;

/** What all of them have in common, or `undefined`. */
function common(torrents, of) {
  const first = JSON.stringify(of(torrents[0]));
  return torrents.every((torrent) => JSON.stringify(of(torrent)) === first) ? of(torrents[0]) : undefined;
}

/** "as the daemon says", never, or at a number; `value()` is `undefined` if nobody touched it. */
function seedLimit(label, now, by, unit) {
  const kind = now === undefined ? "mixed" : typeof now === "string" ? now : "at";
  const options = { session: "as the daemon's settings say", never: "never", at: `at … ${unit}` };
  const choice = select(now === undefined ? { mixed: "as it is for each", ...options } : options, kind);
  const number = numberField(`${label}: ${unit}`, kind === "at" ? now.at : null, { by, none: unit, whole: by !== 1 });
  number.input.setAttribute("aria-label", `${label}: ${unit}`);
  const node = field(label, choice);
  const pair = el("div", { class: "pair-field" });
  choice.replaceWith(pair);
  pair.append(choice, number.input);
  const show = () => {
    number.input.hidden = choice.value !== "at";
  };
  choice.addEventListener("change", show);
  show();
  return {
    node,
    value() {
      if (choice.value === "mixed" || (choice.value === kind && !number.touched)) return undefined;
      if (choice.value !== "at") return choice.value;
      const at = number.value();
      if (at === null) throw new RangeError(`${label}: write a number`);
      return { at };
    },
  };
}

export function editLimits(torrents) {
  const of = (name) => common(torrents, (torrent) => torrent.settings[name]);
  const many = torrents.length > 1;
  const none = (name) => (of(name) === undefined ? "as it is for each" : "no limit");
  const down = rateField("Download at most", of("download_limit") ?? null, { none: none("download_limit") });
  const up = rateField("Upload at most", of("upload_limit") ?? null, { none: none("upload_limit") });
  const peers = numberField("Connections at most", of("max_peers") ?? null, { none: of("max_peers") === undefined ? "as it is for each" : "the daemon's number" });
  const mixed = (name) => (of(name) === undefined ? { mixed: "as it is for each" } : {});
  const bandwidth = select({ ...mixed("bandwidth"), low: "low", normal: "normal", high: "high" }, of("bandwidth") ?? "mixed");
  const session = check("The daemon's limits hold for it too", of("session_limits") ?? true);
  session.input.indeterminate = of("session_limits") === undefined;
  const sequential = check("Pieces in their order, not the rarest first", of("sequential") ?? false);
  sequential.input.indeterminate = of("sequential") === undefined;
  const ratio = seedLimit("Stop seeding at a ratio", of("seed_ratio"), 1, "sent to received");
  const time = seedLimit("Stop seeding after a time", of("seed_time"), HOUR, "hours");
  const idle = seedLimit("Stop seeding when nobody asks", of("seed_idle"), HOUR, "hours");
  formDialog({
    title: `Limits of ${namesOf(torrents)}`, action: "Save",
    content: [
      ...(many ? [el("p", { class: "soft", text: "Only what you change is changed." })] : []),
      el("div", { class: "fields" }, down.node, up.node, peers.node, field("Its place in line when bandwidth is short", bandwidth)),
      session.node, sequential.node,
      el("div", { class: "fields" }, ratio.node, time.node, idle.node),
    ],
    submit: async () => {
      const body = {};
      if (down.touched) body.download_limit = down.value();
      if (up.touched) body.upload_limit = up.value();
      if (peers.touched) body.max_peers = peers.value() ?? 0;
      if (bandwidth.value !== (of("bandwidth") ?? "mixed")) body.bandwidth = bandwidth.value;
      if (!session.input.indeterminate && session.input.checked !== of("session_limits")) body.session_limits = session.input.checked;
      if (!sequential.input.indeterminate && sequential.input.checked !== of("sequential")) body.sequential = sequential.input.checked;
      for (const [name, part] of [["seed_ratio", ratio], ["seed_time", time], ["seed_idle", idle]]) {
        const value = part.value();
        if (value !== undefined) body[name] = value;
      }
      if (Object.keys(body).length > 0) await editSettings(torrents, body, "limits changed");
    },
  });
}

export function editLabels(torrents) {
  const now = common(torrents, (torrent) => torrent.settings.labels);
  const words = text((now ?? []).join(", "), { id: "labels", autofocus: true });
  formDialog({
    title: `Labels of ${namesOf(torrents)}`, action: "Save",
    content: [field("Labels, with commas between", words, now === undefined ? "They differ now: these take the place of all." : null)],
    submit: () => editSettings(torrents, { labels: wordsOf(words.value) }, "labelled"),
  });
}

/** Of one: all its tiers. Of several: trackers that are added to each. */
export async function editTrackers(torrents) {
  const one = torrents.length === 1;
  const lists = await Promise.all(one ? [ask(`${pathOf(torrents[0])}/trackers`)] : []);
  const tiers = one ? tiersIn(lists[0]) : [];
  const area = el("textarea", { id: "trackers-text", rows: 7, class: "mono", spellcheck: false, value: tiersAsText(tiers), autofocus: true });
  formDialog({
    title: one ? `Trackers of ${torrents[0].name}` : `Add trackers to ${namesOf(torrents)}`, action: "Save",
    content: [field("Addresses, one a line", area, "An empty line begins the next tier: it is asked when those before do not answer.")],
    submit: () => {
      const wanted = tiersOf(area.value);
      if (one) return editSettings(torrents, { trackers: wanted }, "trackers changed");
      return edit(torrents, async (torrent) => {
        const here = tiersIn(await ask(`${pathOf(torrent)}/trackers`));
        const known = new Set(here.flat());
        const more = wanted.map((tier) => tier.filter((url) => !known.has(url))).filter((tier) => tier.length > 0);
        if (more.length > 0) await ask(pathOf(torrent), { method: "PATCH", body: { trackers: [...here, ...more] } });
      }, "trackers added");
    },
  });
}

function tiersIn(list) {
  const tiers = [];
  for (const tracker of list) (tiers[tracker.tier] ??= []).push(tracker.url);
  return tiers.filter(Boolean);
}

export function moveData(torrents) {
  const folder = folderField("Folder", common(torrents, (torrent) => torrent.folder) ?? "", { id: "move-folder", autofocus: true, hint: "Where their names are to lie, on the daemon's machine." });
  const find = check("The files are there already: look for them instead of moving", false, { id: "move-find" });
  formDialog({
    title: `Move ${namesOf(torrents)}`, action: "Move",
    content: [folder.node, find.node],
    submit: () => {
      if (folder.value() === "") throw new RangeError("write a folder");
      return edit(torrents, (torrent) => ask(`${pathOf(torrent)}/move`, { method: "POST", body: { folder: folder.value(), find: find.input.checked } }), "being moved");
    },
  });
}

/** Renames the torrent, or a file or folder of it by its path. */
export function rename(torrent, path) {
  const last = path.split("/").pop();
  const name = text(last, { id: "rename-name", autofocus: true });
  formDialog({
    title: `Rename ${last}`, action: "Rename",
    content: [field("New name, on this machine", name, "Others go on seeing the torrent's own name.")],
    submit: async () => {
      if (name.value === "" || name.value.includes("/")) throw new RangeError("a name has at least one character, and no /");
      await edit([torrent], () => ask(`${pathOf(torrent)}/rename`, { method: "POST", body: { path, name: name.value } }), "renamed");
    },
  });
}
