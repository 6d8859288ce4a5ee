package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

const digits = "0123456789"

// folder is a folder with two files and an index.
func folder(t *testing.T) string {
	root := t.TempDir()
	modified := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, content := range map[string]string{
		"digits.txt": digits, "empty": "", "page/index.html": "<h1>index</h1>", "list/a b.css": "a{}",
	} {
		name = filepath.Join(root, name)
		err := errors.Join(
			os.MkdirAll(filepath.Dir(name), 0o700),
			os.WriteFile(name, []byte(content), 0o600),
			os.Chtimes(name, modified, modified),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFiles(t *testing.T) {
	const (
		modified = "Fri, 02 Jan 2026 03:04:05 GMT"
		later    = "Sat, 03 Jan 2026 00:00:00 GMT"
		file     = "/folder/digits.txt"
	)
	serving.OnBoth(t, files(folder(t)), func(t *testing.T, s *serving.Server) {
		for _, c := range []struct {
			path   string
			fields []string // of the request
			status int
			body   string
			header map[string]string // of the answer; "" for none
		}{
			{file, nil, 200, digits, map[string]string{"Last-Modified": modified, "Content-Type": "text/plain; charset=utf-8", "Accept-Ranges": "bytes", "Content-Length": "10"}},
			{"/folder/empty", nil, 200, "", map[string]string{"Content-Length": "0"}},
			{"/folder/page/", nil, 200, "<h1>index</h1>", map[string]string{"Content-Type": "text/html; charset=utf-8"}},
			{"/folder/list/", nil, 200, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n<a href=\"a%20b.css\">a b.css</a>\n</pre>\n", nil},
			{"/folder/list/a%20b.css", nil, 200, "a{}", map[string]string{"Content-Type": "text/css; charset=utf-8"}},
			{"/folder/page", nil, 301, "", map[string]string{"Location": "page/"}},
			{"/folder/page/index.html", nil, 301, "", map[string]string{"Location": "./"}},
			{"/folder/nothing", nil, 404, "404 page not found\n", map[string]string{"Content-Type": "text/plain; charset=utf-8"}},
			{"/folder/%2e%2e/%2e%2e/etc/passwd", nil, 404, "404 page not found\n", nil},

			{file, []string{"If-Modified-Since", modified}, 304, "", map[string]string{"Last-Modified": modified, "Content-Type": "", "Content-Length": ""}},
			{file, []string{"If-Modified-Since", later}, 304, "", nil},
			{file, []string{"If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"}, 200, digits, nil},
			{file, []string{"If-Unmodified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"}, 412, "", nil},
			{"/report", []string{"If-None-Match", `"0", "1"`}, 304, "", map[string]string{"Etag": `"1"`}},
			{"/report", []string{"If-None-Match", `"2"`}, 200, digits, map[string]string{"Etag": `"1"`}},
			{"/report", []string{"If-Match", `"2"`}, 412, "", nil},

			{file, []string{"Range", "bytes=2-4"}, 206, "234", map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "3"}},
			{file, []string{"Range", "bytes=7-"}, 206, "789", map[string]string{"Content-Range": "bytes 7-9/10"}},
			{file, []string{"Range", "bytes=-2"}, 206, "89", map[string]string{"Content-Range": "bytes 8-9/10"}},
			{file, []string{"Range", "bytes=8-100"}, 206, "89", map[string]string{"Content-Range": "bytes 8-9/10"}},
			{file, []string{"Range", "bytes=10-"}, 416, "invalid range: failed to overlap\n", map[string]string{"Content-Range": "bytes */10"}},
			{file, []string{"Range", "bytes=x"}, 416, "invalid range\n", nil},
			{file, []string{"Range", "bytes=0-0", "If-Range", modified}, 206, "0", nil},
			{file, []string{"Range", "bytes=0-0", "If-Range", later}, 200, digits, nil},
			{"/report", []string{"Range", "bytes=-1", "If-Range", `"1"`}, 206, "9", nil},
			{"/report", []string{"Range", "bytes=-1", "If-Range", `"2"`}, 200, digits, nil},
		} {
			for _, method := range []string{"GET", "HEAD"} {
				answer, body := s.Do(t, serving.NewRequest(t, method, s.URL+c.path, nil, c.fields...))
				what := fmt.Sprintf("%s %s %q", method, c.path, c.fields)
				want := c.body
				if method == "HEAD" {
					want = ""
				}
				if answer.StatusCode != c.status || body != want {
					t.Errorf("%s: %s %q", what, answer.Status, body)
				}
				for name, value := range c.header {
					if got := answer.Header.Get(name); got != value {
						t.Errorf("%s: %s %q, want %q", what, name, got, value)
					}
				}
			}
		}
	})
}

func TestSeveralRanges(t *testing.T) {
	serving.OnBoth(t, files(folder(t)), func(t *testing.T, s *serving.Server) {
		for path, typ := range map[string]string{"/folder/digits.txt": "text/plain; charset=utf-8", "/report": "text/plain; charset=utf-8"} {
			answer, body := s.Do(t, serving.NewRequest(t, "GET", s.URL+path, nil, "Range", "bytes=0-1, 5-5, -2"))
			media, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
			if answer.StatusCode != 206 || media != "multipart/byteranges" || err != nil || answer.ContentLength != int64(len(body)) {
				t.Fatalf("%s: %s %v, %v", path, answer.Status, answer.Header, err)
			}
			parts := multipart.NewReader(strings.NewReader(body), parameters["boundary"])
			for _, want := range []struct{ where, text string }{{"bytes 0-1/10", "01"}, {"bytes 5-5/10", "5"}, {"bytes 8-9/10", "89"}} {
				part, err := parts.NextPart()
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(part)
				if part.Header.Get("Content-Range") != want.where || part.Header.Get("Content-Type") != typ || string(text) != want.text || err != nil {
					t.Errorf("%s: part %v %q, %v", path, part.Header, text, err)
				}
			}
			if part, err := parts.NextPart(); err != io.EOF {
				t.Errorf("%s: one more part, %v, %v", path, part, err)
			}
		}
	})
}

// The fields of an answer are those that net/http sends, except for the
// announcement of how long the connection stays open.
func TestSameFields(t *testing.T) {
	root := folder(t)
	var headers []http.Header
	serving.OnBoth(t, files(root), func(t *testing.T, s *serving.Server) {
		answer, _ := s.Do(t, serving.NewRequest(t, "GET", s.URL+"/folder/digits.txt", nil, "Range", "bytes=2-4"))
		for _, name := range []string{"Date", "Connection", "Keep-Alive"} {
			answer.Header.Del(name)
		}
		headers = append(headers, answer.Header)
	})
	if len(headers) != 2 || !maps.EqualFunc(headers[0], headers[1], slices.Equal) {
		t.Errorf("headers %v", headers)
	}
}
