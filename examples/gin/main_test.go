package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
	"github.com/gin-gonic/gin"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	serving.Main(m)
}

func TestJSON(t *testing.T) {
	serving.OnBoth(t, engine(io.Discard, nil), func(t *testing.T, s *serving.Server) {
		long := strings.Repeat("x", 500_000) // a body that does not stay in memory
		for _, c := range []struct {
			body, answer string
			status       int
		}{
			{`{"title": "The Yearling", "pages": 428}`, `{"title":"The Yearling","pages":428}`, 201},
			{`{"title": "` + long + `", "pages": 1}`, `{"title":"` + long + `","pages":1}`, 201},
			{`{"pages": 428}`, `{"error":"Key: 'book.Title' Error:Field validation for 'Title' failed on the 'required' tag"}`, 400},
			{`{"title": "x"}`, `{"error":"Key: 'book.Pages' Error:Field validation for 'Pages' failed on the 'min' tag"}`, 400},
			{``, `{"error":"EOF"}`, 400},
		} {
			r := serving.NewRequest(t, "POST", s.URL+"/books", strings.NewReader(c.body))
			answer, body := s.Do(t, r)
			if answer.StatusCode != c.status || body != c.answer || answer.Header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("%.50q: %s %.100q", c.body, answer.Status, body)
			}
			// Of unknown length, so chunked.
			r = serving.NewRequest(t, "POST", s.URL+"/books", io.MultiReader(strings.NewReader(c.body)))
			if answer, body := s.Do(t, r); answer.StatusCode != c.status || body != c.answer {
				t.Errorf("%.50q in chunks: %s %.100q", c.body, answer.Status, body)
			}
		}
	})
}

// A file in a form: kept in memory, and, as gin's limit for that is passed, in
// a file that is gone after the request.
func TestUpload(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	for _, size := range []int{0, 100, 3 << 20} {
		content := make([]byte, size)
		_, _ = rand.Read(content)
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		part, _ := w.CreateFormFile("file", "random.bin")
		_, _ = part.Write(content)
		_ = w.Close()
		e := engine(io.Discard, nil)
		e.MaxMultipartMemory = 1 << 20
		e.POST("/save", func(c *gin.Context) {
			file, err := c.FormFile("file")
			if err == nil {
				err = c.SaveUploadedFile(file, filepath.Join(temporary, "saved", "file"))
			}
			c.String(http.StatusOK, "%v", err)
		})
		serving.OnBoth(t, e, func(t *testing.T, s *serving.Server) {
			want := fmt.Sprintf("random.bin, %d bytes, %x, <nil>", size, sha256.Sum256(content))
			if _, body := s.Do(t, serving.NewRequest(t, "POST", s.URL+"/upload", bytes.NewReader(form.Bytes()), "Content-Type", w.FormDataContentType())); body != want {
				t.Errorf("answer %q, want %q", body, want)
			}
			if _, body := s.Do(t, serving.NewRequest(t, "POST", s.URL+"/save", bytes.NewReader(form.Bytes()), "Content-Type", w.FormDataContentType())); body != "<nil>" {
				t.Errorf("saving: %s", body)
			}
			if saved, err := os.ReadFile(filepath.Join(temporary, "saved", "file")); err != nil || !bytes.Equal(saved, content) {
				t.Errorf("%d bytes saved, %v", len(saved), err)
			}
			serving.Until(t, "the form's files are removed", func() bool {
				left, _ := filepath.Glob(filepath.Join(temporary, "multipart-*"))
				return len(left) == 0
			})
		})
	}
}

// Each step of a stream arrives before the next one is made.
func TestStream(t *testing.T) {
	ticks := make(chan time.Time)
	serving.OnBoth(t, engine(io.Discard, ticks), func(t *testing.T, s *serving.Server) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		go func() { ticks <- begin }()
		answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/clock", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		lines := bufio.NewReader(answer.Body)
		for i := range 5 {
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("12:00:0%d\n", i) {
				t.Fatalf("line %d: %q, %v", i, line, err)
			}
			if i < 4 {
				ticks <- begin.Add(time.Duration(i+1) * time.Second)
			}
		}
		leave() // and the stream ends, or the server could not
	})
}

// Stream itself notices that the client has left: by http.CloseNotifier.
func TestStreamTellsThatTheClientLeft(t *testing.T) {
	steps, gone := make(chan struct{}), make(chan bool)
	e := gin.New()
	e.GET("/", func(c *gin.Context) {
		gone <- c.Stream(func(w io.Writer) bool {
			_, _ = io.WriteString(w, "x")
			<-steps
			return true
		})
	})
	s := serving.Start(t, &catamount.Server{Handler: e})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		steps <- struct{}{} // flushes
		leave()
		close(steps)
	}()
	if answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL, nil).WithContext(ctx)); err == nil {
		answer.Body.Close()
	}
	if !serving.WaitFor(t, gone) {
		t.Error("the stream ended by itself")
	}
}

func TestFile(t *testing.T) {
	const content = "0123456789"
	t.Chdir(t.TempDir())
	if err := os.WriteFile("README.md", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	serving.OnBoth(t, engine(io.Discard, nil), func(t *testing.T, s *serving.Server) {
		answer, body := s.Get(t, "/readme")
		if answer.StatusCode != 200 || body != content || answer.ContentLength != 10 {
			t.Errorf("%s %q", answer.Status, body)
		}
		modified := answer.Header.Get("Last-Modified")
		answer, body = s.Do(t, serving.NewRequest(t, "GET", s.URL+"/readme", nil, "Range", "bytes=2-4"))
		if answer.StatusCode != 206 || body != "234" || answer.Header.Get("Content-Range") != "bytes 2-4/10" {
			t.Errorf("range: %s %q %v", answer.Status, body, answer.Header)
		}
		answer, body = s.Do(t, serving.NewRequest(t, "GET", s.URL+"/readme", nil, "If-Modified-Since", modified))
		if answer.StatusCode != 304 || body != "" {
			t.Errorf("unchanged: %s %q", answer.Status, body)
		}
	})
}

func TestRecovery(t *testing.T) {
	var panics bytes.Buffer
	e := engine(&panics, nil)
	e.GET("/panic", func(*gin.Context) { panic("a bug in the application") })
	serving.OnBoth(t, e, func(t *testing.T, s *serving.Server) {
		panics.Reset()
		if answer, body := s.Get(t, "/panic"); answer.StatusCode != 500 || body != "" {
			t.Errorf("%s %q", answer.Status, body)
		}
		if !strings.Contains(panics.String(), "a bug in the application") {
			t.Errorf("logged %q", &panics)
		}
	})
}
