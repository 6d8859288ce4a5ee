package demo

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed page.html upload.html
var pages embed.FS

// A broken embedded page is a mistake of this package that every test shows.
var templates = template.Must(template.ParseFS(pages, "*.html"))

func (a *app) page(w http.ResponseWriter, r *http.Request)       { a.render(w, r, "page.html") }
func (a *app) uploadForm(w http.ResponseWriter, r *http.Request) { a.render(w, r, "upload.html") }

func (a *app) render(w http.ResponseWriter, r *http.Request, name string) {
	var text bytes.Buffer
	err := templates.ExecuteTemplate(&text, name, struct {
		identity
		Version string
	}{a.identify(r), a.Version})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(text.Bytes())
}
