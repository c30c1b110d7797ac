"""The report's template and style sheet (jinja2, autoescaped)."""

# ruff: noqa: E501
from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f5f6f8; --paper: #ffffff; --ink: #16191d; --soft: #57616c; --rule: #e2e6ea; --grid: #e9ecef;
  --train: #2a62c4; --before: #b35a00; --after: #0a7d5f; --fail: #b93a22; --note: #fff6e5; --other: #8b95a1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1114; --paper: #171b20; --ink: #e9ecef; --soft: #9ba6b2; --rule: #2b3138; --grid: #262c33;
    --train: #7fb0ff; --before: #f2a650; --after: #45cba4; --fail: #ff8a70; --note: #2a2416; --other: #6b7682;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 48px 24px 64px; }
.over { margin: 0 0 10px; color: var(--soft); font-size: 14px; }
h1 { margin: 0 0 12px; font-size: clamp(28px, 4.2vw, 42px); line-height: 1.14; letter-spacing: -0.02em; text-wrap: balance; }
h1 .before, h1 .after { white-space: nowrap; }
h2 { margin: 0 0 4px; font-size: 21px; line-height: 1.3; letter-spacing: -0.01em; }
h3 { margin: 0 0 6px; font-size: 15px; line-height: 1.4; }
p { margin: 0 0 12px; max-width: 72ch; }
.lead { font-size: 18px; color: var(--soft); max-width: 66ch; }
.lead strong { color: var(--ink); }
.before { color: var(--before); } .after { color: var(--after); }
section, .tiles { margin-top: 24px; }
section { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px; padding: 24px; }
section > p { color: var(--soft); }
.note { background: var(--note); border-radius: 10px; padding: 12px 18px; margin: 18px 0 0; max-width: none; }
.tiles { display: flex; flex-wrap: wrap; gap: 1px; background: var(--rule);
  border: 1px solid var(--rule); border-radius: 12px; overflow: hidden; padding: 0; }
.tiles div { flex: 1 1 140px; background: var(--paper); padding: 14px 18px; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.tiles dd small { font-size: 13px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit; font-size: 13px; fill: var(--soft); }
.end { text-anchor: end; } .mid { text-anchor: middle; } .start { text-anchor: start; }
.grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.train, .whisker.train, .range.train { stroke: var(--train); } .band.train, .dot.train, .mark.train { fill: var(--train); }
.line.after, .whisker.after, .range.after { stroke: var(--after); } .band.after, .dot.after, .mark.after { fill: var(--after); }
.whisker.before, .range.before { stroke: var(--before); } .mark.before { fill: var(--before); }
.line.fail { stroke: var(--fail); } .dot.fail, .band.fail { fill: var(--fail); }
.line.won { stroke: var(--after); opacity: .45; } .dot.won { fill: var(--after); opacity: .45; }
.line.lost { stroke: var(--fail); opacity: .8; } .dot.lost { fill: var(--fail); opacity: .8; }
.band { opacity: .16; stroke: none; }
.whisker { stroke-width: 2.5; stroke-linecap: round; }
.mark { stroke: var(--paper); stroke-width: 2; }
svg .tag { font-weight: 600; font-size: 15px; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; stroke-linejoin: round; }
svg .tag.before { fill: var(--before); } svg .tag.after { fill: var(--after); }
.range { stroke-width: 4; stroke-linecap: round; opacity: .38; }
.narrow { display: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 14px; padding: 0; list-style: none; font-size: 14px; color: var(--soft); }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 6px; margin-right: 7px; vertical-align: -1px; background: var(--other); }
i.train, rect.train { background: var(--train); fill: var(--train); } i.before, rect.before { background: var(--before); fill: var(--before); }
i.after, rect.after, i.won { background: var(--after); fill: var(--after); } i.fail, i.lost { background: var(--fail); }
rect.other { fill: var(--other); } rect.third { fill: var(--before); } i.third { background: var(--before); }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 24px 28px; margin-top: 16px; }
.multiples p { margin: 0; font-size: 13.5px; line-height: 1.45; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; margin-top: 12px; }
th, td { text-align: left; padding: 9px 14px 9px 0; border-top: 1px solid var(--rule); vertical-align: middle; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13.5px; }
td small { white-space: nowrap; } tbody th { font-weight: 500; } tbody th small, td small { display: block; font-weight: 400; color: var(--soft); font-size: 13px; }
tr.all th, tr.all td { border-top: 2px solid var(--rule); font-weight: 600; } tr.all small { font-weight: 400; }
td.change { font-weight: 600; white-space: nowrap; }
.bar { width: 200px; }
.stack { height: 22px; border-radius: 6px; margin: 14px 0 4px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 24px; margin-top: 14px; }
.pair { margin: 0; }
.pair > figcaption { font-size: 14px; margin-bottom: 6px; }
.pair > div { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.pair video { width: 100%; display: block; border-radius: 8px; background: #000; }
.pair p { margin: 6px 0 0; font-size: 14px; color: var(--soft); } .pair p b { font-weight: 600; }
.good { color: var(--after); } .bad { color: var(--fail); }
.empty { border: 1px dashed var(--rule); border-radius: 8px; display: grid; place-items: center; min-height: 120px; padding: 12px;
  color: var(--soft); font-size: 14px; text-align: center; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 22px 28px; margin-top: 20px; }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: 3px; }
.strip img { width: 100%; display: block; border-radius: 4px; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 500; }
.keys th { font-weight: 400; color: var(--soft); width: 38%; padding-top: 5px; padding-bottom: 5px; } .keys td { padding-top: 5px; padding-bottom: 5px; overflow-wrap: anywhere; }
.keys th, .keys td { font-size: 14px; }
code { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
pre { background: var(--ground); border-radius: 8px; padding: 12px 16px; overflow-x: auto; margin: 12px 0 0; }
.read p { color: var(--ink); } .read p:last-child { margin-bottom: 0; }
footer { margin-top: 24px; color: var(--soft); font-size: 13.5px; }
@media (max-width: 640px) {
  main { padding: 28px 14px 40px; } section { padding: 18px 16px; } .lead { font-size: 17px; }
  .wide { display: none; } .narrow { display: block; }
  .pairs, .strips, .multiples { grid-template-columns: 1fr; }
  table.tasks thead { display: none; } table.tasks, table.tasks tbody { display: block; }
  table.tasks tr { display: grid; grid-template-columns: 1fr 1fr; border-top: 1px solid var(--rule); padding: 10px 0; gap: 4px 12px; }
  table.tasks th, table.tasks td { border: 0; padding: 0; } table.tasks th, table.tasks td.scale { grid-column: 1 / -1; }
  table.tasks td[data-label]::before { content: attr(data-label) " "; color: var(--soft); font-weight: 400; font-size: 13px; }
  table.tasks td.change { grid-column: 1 / -1; } .bar { width: 100%; max-width: 320px; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="over">{{ over }}</p>
<h1>{{ headline }}</h1>
<p class="lead">{{ lead }}</p>
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}</header>

<dl class="tiles">
{% for name, value, detail in tiles %}<div><dt>{{ name }}</dt><dd>{{ value }}{% if detail %} <small>{{ detail }}</small>{% endif %}</dd></div>
{% endfor %}</dl>

<section id="learning">
<h2>Success over the run</h2>
<ul class="legend">{% for style, text in learning.legend %}<li><i class="{{ style }}"></i>{{ text }}</li>{% endfor %}</ul>
<div class="wide">{{ learning.wide }}</div>
<div class="narrow">{{ learning.narrow }}</div>
</section>

{% if tasks %}<section id="tasks">
<h2>Success by task</h2>
<p>{{ tasks_text }}</p>
<table class="tasks">
<thead><tr><th scope="col">Task</th><th scope="col">Before</th><th scope="col">After</th><th scope="col">Change</th><th scope="col">0 to 100 %</th></tr></thead>
<tbody>
{% for row in tasks %}<tr{% if row.all %} class="all"{% endif %}><th scope="row">{{ row.name }}<small>{{ row.id }}</small></th>
{% for label, rate in (("Before", row.before), ("After", row.after)) %}<td data-label="{{ label }}">{% if rate %}{{ rate.percent }}<small>{{ rate.count }}</small><small>{{ rate.interval }}</small>{% else %}not evaluated{% endif %}</td>
{% endfor %}<td class="change" data-label="Change">{{ row.change }}</td><td class="scale">{{ row.bar }}</td></tr>
{% endfor %}</tbody>
</table>
</section>{% endif %}

<section id="videos">
<h2>The same starts, before and after</h2>
<p>{{ videos_text }}</p>
{% if pairs %}<div class="pairs">
{% for pair in pairs %}<figure class="pair"><figcaption>{{ pair.caption }}</figcaption><div>
{% for label, video in (("Before", pair.before), ("After", pair.after)) %}<div>{% if video %}<video autoplay muted loop controls playsinline preload="auto" aria-label="{{ video.alt }}" src="{{ video.src }}"></video><p>{{ label }}: <b class="{{ 'good' if video.success else 'bad' }}">{{ "success" if video.success else "failure" }}</b>, {{ video.n_steps }} steps</p>{% else %}<div class="empty">{{ label }}: not filmed</div>{% endif %}</div>
{% endfor %}</div></figure>
{% endfor %}</div>{% endif %}
</section>

{% if graded %}<section id="graded">
<h2>How failures were graded</h2>
<p>{{ graded.text }}</p>
<ul class="legend"><li><i class="won"></i>success</li><li><i class="lost"></i>failure</li></ul>
<div class="wide">{{ graded.wide }}</div>
<div class="narrow">{{ graded.narrow }}</div>
{% if graded.shared %}<div class="strip" style="margin-top: 16px">{% for src in graded.shared %}<img src="{{ src }}" alt="frame {{ loop.index }} of the graded episode">{% endfor %}</div>{% endif %}
{% if graded.strips %}<div class="strips">
{% for strip in graded.strips %}<div><h3>{{ strip.title }}</h3>{{ strip.chart }}<div class="strip">{% for src in strip.frames %}<img src="{{ src }}" alt="frame {{ loop.index }} of {{ loop.length }}">{% endfor %}</div></div>
{% endfor %}</div>{% endif %}
</section>{% endif %}

{% if multiples %}<section id="training">
<h2>Inside the training</h2>
<p>The training's own numbers, by RL step.</p>
<div class="multiples">
{% for item in multiples %}<div><h3>{{ item.title }}</h3>{{ item.chart }}<p>{{ item.text }}</p></div>
{% endfor %}</div>
</section>{% endif %}

{% if phases %}<section id="time">
<h2>Where the time went</h2>
<p>{{ time_text }}</p>
{{ time_bar }}
<ul class="legend">{% for phase in phases %}<li><i class="{{ phase.style }}"></i>{{ phase.name }} {{ phase.duration }} ({{ phase.percent }})</li>{% endfor %}</ul>
</section>{% endif %}

<section id="read" class="read">
<h2>How to read this page</h2>
{% for text in reading %}<p>{{ text }}</p>
{% endfor %}</section>

<section id="settings">
<h2>Settings and origin</h2>
{% if origin %}<table class="keys"><tbody>{% for name, value in origin %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</tbody></table>
{% endif %}{% if not recorded %}<p>The run left no record of its versions and machine (provenance.json).</p>{% endif %}
{% if command %}<pre><code>{{ command }}</code></pre>{% endif %}
{% if settings %}<details><summary>All settings</summary>
<table class="keys"><tbody>{% for name, value in settings %}<tr><th scope="row"><code>{{ name }}</code></th><td><code>{{ value }}</code></td></tr>{% endfor %}</tbody></table></details>
{% else %}<p>The run left no record of its settings (config.json).</p>{% endif %}
</section>
<footer>{{ footer }}</footer>
</main>
</body>
</html>
"""
