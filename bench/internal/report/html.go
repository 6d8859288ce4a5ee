package report

import (
	"html/template"
	"io"
)

// page is the whole report in one file that refers to no other.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"taken": taken, "versions": versions, "firstLine": firstLine,
	"drawing": func(p plot) template.HTML { return template.HTML(p.SVG) }, // made by this package, which escapes names
}).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Catamount: benchmarks</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-size: 13px; display: block; overflow-x: auto }
caption { text-align: left; font-weight: 600; padding: 0.3em 0 }
th, td { border-bottom: 1px solid #ddd; padding: 0.2em 0.7em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
nav a { margin-right: 0.8em }
.short { color: #a33 }
.taken { color: #666; font-size: 12px }
svg { max-width: 100%; height: auto }
</style>
</head>
<body>
<h1>Benchmarks</h1>
<p>{{.Preamble}}</p>
<nav>{{range .Chapters}}<a href="#{{.Name}}">{{.Name}}</a> {{end}}</nav>
{{if .Verdicts}}<h2>Targets</h2>
<table><tr><th>catamount</th><th>measured</th><th>wanted</th><th></th></tr>
{{range .Verdicts}}<tr><td>{{.Claim}}</td><td>{{.Value}}</td><td>{{.Wanted}}</td>{{if .Met}}<td>reached</td>{{else}}<td class="short">falls short</td>{{end}}</tr>
{{end}}</table>{{end}}
{{range .Chapters}}<h2 id="{{.Name}}">{{.Name}}</h2>
<p><b>{{.Question}}</b> {{.Method}}</p>
{{range .Plots}}<figure>{{drawing .}}</figure>
{{end}}{{range .Tables}}<table><caption>{{.Caption}}</caption><tr>{{range .Header}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>
{{end}}{{with .Section.Failed}}<p class="short">These measurements failed and do not count:</p><ul>
{{range .}}<li>{{.Row}}, {{.Server}}, round {{.Round}}: {{firstLine .Error}}</li>
{{end}}</ul>{{end}}<p class="taken">{{taken .Section}} Servers: {{versions .Section}}.</p>
{{end}}</body>
</html>
`))

func writeHTML(out io.Writer, chapters []chapter, verdicts []verdict) error {
	return page.Execute(out, struct {
		Preamble string
		Chapters []chapter
		Verdicts []verdict
	}{preamble, chapters, verdicts})
}
