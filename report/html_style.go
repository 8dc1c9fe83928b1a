// SPDX-License-Identifier: Apache-2.0

package report

// style is the page's, for light and dark, telephone and paper. System fonts only.
const style = `
:root{--bg:#fff;--fg:#1b1f24;--dim:#57606a;--edge:#d0d7de;--box:#f6f8fa;--bad:#b42318;--badbg:#fdeceb;--good:#146c2e;--goodbg:#e8f5ec;--unsure:#8a5a00;--unsurebg:#fff4dc;--track:#2563a8}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e4e8ec;--dim:#9aa5b1;--edge:#353d47;--box:#1d232a;--bad:#ff8f85;--badbg:#3a1b1a;--good:#7ddc97;--goodbg:#15301d;--unsure:#f2c14e;--unsurebg:#352a10;--track:#7fb4ee}}
*{box-sizing:border-box}
body{margin:0;overflow-wrap:anywhere;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:52rem;margin:0 auto;padding:1rem}
code,pre,td.what,ul.proof{font-family:ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;font-size:.875rem}
h1{margin:.1rem 0 .3rem;font-size:1.6rem;line-height:1.2}
h2{margin:2rem 0 .6rem;font-size:1.15rem;border-bottom:1px solid var(--edge);padding-bottom:.25rem}
.verdict{border-left:6px solid;border-radius:6px;padding:.8rem 1rem;margin-bottom:1rem}
.verdict p{margin:.2rem 0}
.to{font-weight:600}
.summary{font-size:1.1rem;color:var(--fg)}
.sure{color:var(--dim);font-size:.9rem}
.to{color:var(--fg)}
.bad{border-color:var(--bad);background:var(--badbg)}.bad h1{color:var(--bad)}
.good{border-color:var(--good);background:var(--goodbg)}.good h1{color:var(--good)}
.unsure{border-color:var(--unsure);background:var(--unsurebg)}.unsure h1{color:var(--unsure)}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.5rem 0}
dt{color:var(--dim)}dd{margin:0}
small{color:var(--dim);font-size:.875rem}
ul{padding-left:1.2rem;margin:.3rem 0}li{margin:.25rem 0}
pre{background:var(--box);border:1px solid var(--edge);border-radius:6px;padding:.6rem .8rem;margin:.2rem 0 .8rem;white-space:pre-wrap;overflow-wrap:anywhere}
.w{white-space:nowrap}
pre>span{display:inline-block;width:100%;padding-left:1.2rem;text-indent:-1.2rem}
.label{margin:.4rem 0 0;color:var(--dim);font-size:.9rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;color:var(--dim);padding:.4rem 0}
th{text-align:left;color:var(--dim);font-weight:500}
td,th{padding:.25rem .6rem .25rem 0;vertical-align:top;border-bottom:1px solid var(--edge)}
table.way td{max-width:16rem}table.way td.what{max-width:none}
table.hops th{white-space:nowrap}td.when{white-space:nowrap;text-align:right;color:var(--dim);font-variant-numeric:tabular-nums}
tr.died{background:var(--badbg)}tr.died td,tr.died td.when{color:var(--bad);font-weight:600}
tr.fine td:first-child{color:var(--good)}tr.open td:first-child{color:var(--unsure)}
.note{border:1px solid var(--edge);border-radius:6px;background:var(--box);padding:.6rem .8rem}
tr.gap td{color:var(--dim);font-style:italic}
summary{cursor:pointer;margin-top:2rem;font-size:1.15rem;font-weight:600}
footer{margin-top:2rem;color:var(--dim);font-size:.875rem}
svg.way{display:block;width:100%;max-width:34rem;height:auto}
svg text{font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--fg)}
svg .st{font-size:14px;font-weight:600}svg .st.died{fill:var(--bad)}
svg .ns{font-size:12px;fill:var(--track);font-weight:600}
svg .at{fill:var(--dim);font-size:11px;text-anchor:end}
svg .what{fill:var(--dim)}
svg .lane{stroke:var(--edge);stroke-width:2;stroke-dasharray:2 4}
svg .track{fill:none;stroke:var(--track);stroke-width:4}
svg .after{stroke:var(--dim);stroke-width:2;stroke-dasharray:4 4}
svg .stop{fill:var(--bg);stroke:var(--track);stroke-width:3}
svg circle.died{fill:var(--bad)}
svg .cross{stroke:var(--bg);stroke-width:2.5;fill:none}
@media (min-width:40.01rem){
td,th{overflow-wrap:break-word}td.what,td code{overflow-wrap:anywhere}table.way td:nth-child(3){white-space:nowrap}
}
@media (max-width:40rem){
dl.facts{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}
table.way thead{display:none}table.way tr{display:flex;flex-wrap:wrap;gap:0 .8rem;padding:.3rem 0;border-bottom:1px solid var(--edge)}
table.way td{border:0;padding:0}table.way tr.died{padding:.3rem .4rem}table.way td.what{flex-basis:100%}
}
@media print{
:root{--bg:#fff;--fg:#000;--dim:#444;--edge:#bbb;--box:#f4f4f4;--bad:#a00;--badbg:#fbeaea;--good:#063;--goodbg:#eaf5ee;--unsure:#740;--unsurebg:#fdf5e4;--track:#246}
body{font-size:11pt}main{max-width:none;padding:0}
section,.verdict,tr{break-inside:avoid}section:has(table.way){break-inside:auto}h2{break-after:avoid}
svg.way{max-width:11cm;max-height:24cm}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
`
