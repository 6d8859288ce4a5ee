package demo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/internal/demo"
)

func placed(place int) demo.Options {
	return demo.Options{
		PlaceOf: func(*http.Request) (int, bool) { return place, true },
		Worker:  3,
		Version: "9.8.7",
	}
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	return serve(h, httptest.NewRequest("GET", target, nil))
}

func TestPage(t *testing.T) {
	pid := fmt.Sprintf("<dt>Process</dt><dd>%d</dd>", os.Getpid())
	// Place 0 is a place, and must not look like none.
	w := get(t, demo.Handler(placed(0)), "/")
	if ct := w.Header().Get("Content-Type"); w.Code != 200 || ct != "text/html; charset=utf-8" {
		t.Fatalf("status %d, Content-Type %q", w.Code, ct)
	}
	for _, want := range []string{pid, "<dt>Worker</dt><dd>3</dd>", "<dt>Pool place</dt><dd>0</dd>", "Version 9.8.7."} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if w := get(t, demo.Handler(demo.Options{}), "/"); !strings.Contains(w.Body.String(), "<dt>Pool place</dt><dd>–</dd>") {
		t.Error("without places the page shows one")
	}
	// It must work without a network: nothing is loaded from elsewhere.
	for _, elsewhere := range []string{"src=", "@import", "https://", `<link rel="stylesheet"`} {
		if strings.Contains(w.Body.String(), elsewhere) {
			t.Errorf("the page refers to something outside: %q", elsewhere)
		}
	}
}

func TestRoutes(t *testing.T) {
	h := demo.Handler(demo.Options{})
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/", 200},
		{"HEAD", "/", 200},
		{"POST", "/", 405},
		{"GET", "/nowhere", 404},
		{"POST", "/info", 405},
		{"DELETE", "/upload", 405},
		{"GET", "/upload", 200},
		{"GET", "/slow?ms=0", 200},
		{"GET", "/slow?ms=-1", 400},
		{"GET", "/slow?ms=60001", 400},
		{"GET", "/slow?ms=soon", 400},
		{"GET", "/stream?n=1", 200},
		{"GET", "/stream?n=0", 400},
		{"GET", "/stream?n=601", 400},
	} {
		w := serve(h, httptest.NewRequest(c.method, c.target, nil))
		if w.Code != c.want {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, w.Code, c.want)
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s %s: Cache-Control %q, want no-store", c.method, c.target, got)
		}
	}
}

func TestInfo(t *testing.T) {
	var got struct {
		PID, Worker int
		Place       *int
		Version     string
		Served      int `json:"requests_served"`
	}
	h := demo.Handler(placed(5))
	for range 2 {
		if err := json.Unmarshal(get(t, h, "/info").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
	}
	if got.PID != os.Getpid() || got.Worker != 3 || got.Place == nil || *got.Place != 5 || got.Version != "9.8.7" || got.Served != 2 {
		t.Errorf("info = %+v", got)
	}

	unknown := demo.Options{PlaceOf: func(*http.Request) (int, bool) { return 7, false }}
	if w := get(t, demo.Handler(unknown), "/info"); !strings.Contains(w.Body.String(), `"place": null`) {
		t.Errorf("place that is not known: %s", w.Body)
	}
}

func TestEcho(t *testing.T) {
	h := demo.Handler(placed(1))

	r := httptest.NewRequest("GET", "/echo?a=b", nil)
	r.Header.Set("X-Colour", "tawny")
	text := serve(h, r).Body.String()
	for _, want := range []string{"GET /echo?a=b HTTP/1.1\n", "Host: example.com\n", "X-Colour: tawny\n", "worker 3, place 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("echo without a body lacks %q:\n%s", want, text)
		}
	}

	body := "\x00raw \r\n bytes\xff"
	for _, known := range []bool{true, false} {
		r := httptest.NewRequest("PUT", "/echo", strings.NewReader(body))
		r.Header.Set("Content-Type", "image/x-cat")
		if !known {
			r.ContentLength = -1 // as chunked requests have it
		}
		w := serve(h, r)
		if w.Body.String() != body {
			t.Errorf("echo = %q, want %q", w.Body, body)
		}
		if got := w.Header().Get("Content-Type"); got != "image/x-cat" {
			t.Errorf("Content-Type %q, want the request's", got)
		}
		if got := w.Header().Get("X-Echo-Method"); got != "PUT" {
			t.Errorf("X-Echo-Method %q, want PUT", got)
		}
		if got := w.Header().Get("Content-Length"); known && got != fmt.Sprint(len(body)) || !known && got != "" {
			t.Errorf("Content-Length %q, with a known length: %t", got, known)
		}
	}
}

// TestEchoLarge runs over a real server, which takes an unread body away at
// the first write unless told otherwise.
func TestEchoLarge(t *testing.T) {
	server := httptest.NewServer(demo.Handler(demo.Options{}))
	defer server.Close()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	resp, err := http.Post(server.URL+"/echo", "text/plain", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("echo of %d bytes: %d bytes, error %v", len(body), len(got), err)
	}
}

func TestEchoTruncated(t *testing.T) {
	defer func() {
		if got := recover(); got != http.ErrAbortHandler {
			t.Errorf("panic %v, want http.ErrAbortHandler: half an echo must not look whole", got)
		}
	}()
	broken := io.MultiReader(strings.NewReader("half"), brokenReader{})
	serve(demo.Handler(demo.Options{}), httptest.NewRequest("POST", "/echo", broken))
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the peer has gone") }

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := get(t, demo.Handler(placed(2)), "/slow?ms=60000")
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v, want 1m", took)
		}
		if body := w.Body.String(); !strings.Contains(body, `"slept_ms": 60000`) || !strings.Contains(body, `"place": 2`) {
			t.Errorf("answer %s", body)
		}
	})
}

func TestSlowClientGone(t *testing.T) {
	for _, target := range []string{"/slow?ms=60000", "/stream?n=600"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			start := time.Now()
			serve(demo.Handler(demo.Options{}), httptest.NewRequest("GET", target, nil).WithContext(ctx))
			if took := time.Since(start); took != 500*time.Millisecond {
				t.Errorf("%s: ended after %v, want 500ms, when the client went", target, took)
			}
		})
	}
}

// flushes notes when each flush came, and what had been written by then.
type flushes struct {
	*httptest.ResponseRecorder
	start time.Time
	at    []time.Duration
	lines []int
}

func (f *flushes) Flush() {
	f.at = append(f.at, time.Since(f.start))
	f.lines = append(f.lines, bytes.Count(f.Body.Bytes(), []byte("\n")))
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &flushes{ResponseRecorder: httptest.NewRecorder(), start: time.Now()}
		demo.Handler(placed(4)).ServeHTTP(w, httptest.NewRequest("GET", "/stream?n=3", nil))
		if got, want := fmt.Sprint(w.at, w.lines), "[0s 200ms 400ms] [1 2 3]"; got != want {
			t.Errorf("flushes at and lines: %s, want %s", got, want)
		}
		if !strings.HasPrefix(w.Body.String(), "line 1 of 3, from pid ") {
			t.Errorf("body %q", w.Body)
		}
	})
}

type uploaded struct {
	Files []struct {
		Field, Name, Type, SHA256 string
		Size                      int64
	}
}

func upload(t *testing.T, r *http.Request) (w *httptest.ResponseRecorder, answer uploaded) {
	t.Helper()
	w = serve(demo.Handler(demo.Options{}), r)
	if w.Code == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
	}
	return w, answer
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestUploadRaw(t *testing.T) {
	for _, body := range []string{"", "paw", strings.Repeat("x", 1<<20)} {
		r := httptest.NewRequest("PUT", "/upload", strings.NewReader(body))
		r.Header.Set("Content-Type", "text/cat")
		_, got := upload(t, r)
		if len(got.Files) != 1 || got.Files[0].Size != int64(len(body)) || got.Files[0].SHA256 != sum(body) || got.Files[0].Type != "text/cat" {
			t.Errorf("upload of %d bytes: %+v", len(body), got)
		}
	}
}

func multipartRequest(t *testing.T, parts int) *http.Request {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for i := range parts {
		part, err := form.CreateFormFile("file", fmt.Sprintf("%d.txt", i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(part, "content %d", i)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/upload", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	return r
}

func TestUploadMultipart(t *testing.T) {
	_, got := upload(t, multipartRequest(t, 2))
	if len(got.Files) != 2 {
		t.Fatalf("files: %+v", got)
	}
	f := got.Files[1]
	if f.Field != "file" || f.Name != "1.txt" || f.Size != int64(len("content 1")) || f.SHA256 != sum("content 1") {
		t.Errorf("second file: %+v", f)
	}
}

func TestUploadRefused(t *testing.T) {
	noBoundary := httptest.NewRequest("POST", "/upload", strings.NewReader("x"))
	noBoundary.Header.Set("Content-Type", "multipart/form-data")

	cut := multipartRequest(t, 1)
	text, _ := io.ReadAll(cut.Body)
	cut.Body = io.NopCloser(bytes.NewReader(text[:len(text)-10]))

	large := httptest.NewRequest("POST", "/upload", nil)
	large.Body = http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("too much")), 3)

	for _, c := range []struct {
		name string
		r    *http.Request
		want int
	}{
		{"no boundary", noBoundary, 400},
		{"cut in the last boundary", cut, 400},
		{"too many parts", multipartRequest(t, 101), 400},
		{"over the server's limit", large, 413},
	} {
		if w, _ := upload(t, c.r); w.Code != c.want {
			t.Errorf("%s: status %d, want %d", c.name, w.Code, c.want)
		}
	}
}
