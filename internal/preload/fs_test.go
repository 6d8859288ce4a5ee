package preload

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func dirOf(t *testing.T, source fs.FS) *FS {
	t.Helper()
	d := preloaded(t, func(b *Builder) error { return b.Dir("dir", source) })
	f, err := d.FS("dir")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFS(t *testing.T) {
	when := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	source := fstest.MapFS{
		"index.html":        {Data: []byte("<h1>hello</h1>"), Mode: 0o644, ModTime: when},
		"empty":             {Mode: 0o600},
		"a/b/c/deep.txt":    {Data: []byte("deep"), Mode: 0o444},
		"a/b.txt":           {Data: []byte("b"), Mode: 0o640},
		"a-b":               {Data: []byte("sorts before a/"), Mode: 0o644},
		"nothing":           {Mode: fs.ModeDir | 0o755},
		"large":             {Data: []byte(strings.Repeat("0123456789", 30_000)), Mode: 0o755},
		"übung/läßt sich.x": {Data: []byte("ä")},
	}
	f := dirOf(t, source)
	if err := fstest.TestFS(f, "index.html", "empty", "a/b/c/deep.txt", "a/b.txt", "a-b", "nothing", "large", "übung/läßt sich.x"); err != nil {
		t.Error(err)
	}
	err := fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		want, err := d.Info()
		if err != nil {
			return err
		}
		got, err := fs.Stat(f, name)
		if err != nil {
			return err
		}
		if got.Name() != want.Name() || got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()) ||
			got.Size() != want.Size() || got.ModTime().IsZero() != want.ModTime().IsZero() {
			t.Errorf("%s: %v, want %v", name, got, fs.FormatFileInfo(want))
		}
		if d.IsDir() {
			return nil
		}
		content, err := f.Contents(name)
		if err != nil || content != string(source[name].Data) {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFSErrors(t *testing.T) {
	f := dirOf(t, fstest.MapFS{"a/b": {Data: []byte("x")}})
	for _, c := range []struct {
		err  error
		want error
	}{
		{second(f.Open("../a")), fs.ErrInvalid},
		{second(f.Open("/a")), fs.ErrInvalid},
		{second(f.Open("")), fs.ErrInvalid},
		{second(f.Open("a/c")), fs.ErrNotExist},
		{second(f.Open("a/b/c")), fs.ErrNotExist},
		{second(f.Stat("b")), fs.ErrNotExist},
		{second(f.ReadDir("b")), fs.ErrNotExist},
		{second(f.ReadDir("a/b")), errNotDirectory},
		{second(f.ReadFile("a")), errIsDirectory},
		{second(f.Contents("a")), errIsDirectory},
		{second(f.Contents("b")), fs.ErrNotExist},
	} {
		var path *fs.PathError
		if !errors.Is(c.err, c.want) || !errors.As(c.err, &path) {
			t.Errorf("%v, want %v", c.err, c.want)
		}
	}
	file, err := f.Open("a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := file.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("the second Close: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestReadFileCopies: who may write to what it gets, gets a copy.
func TestReadFileCopies(t *testing.T) {
	f := dirOf(t, fstest.MapFS{"a": {Data: []byte("x")}})
	p, err := f.ReadFile("a")
	if err != nil {
		t.Fatal(err)
	}
	p[0] = 'y'
	if content, _ := f.Contents("a"); content != "x" {
		t.Errorf("%q", content)
	}
}

// TestDirOfDisk: links, and what is no file.
func TestDirOfDisk(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "tree/sub"), 0o750))
	must(os.WriteFile(filepath.Join(root, "tree/sub/file"), []byte("content"), 0o640))
	must(os.Symlink("sub/file", filepath.Join(root, "tree/link")))
	f := dirOf(t, os.DirFS(filepath.Join(root, "tree")))
	info, err := f.Stat("link")
	if err != nil || info.Mode() != 0o640 || info.Name() != "link" {
		t.Errorf("the link is %v, %v", info, err)
	}
	if content, err := f.Contents("link"); content != "content" {
		t.Errorf("the link has %q, %v", content, err)
	}

	for name, make := range map[string]func(string) error{
		"is a link to a directory":         func(name string) error { return os.Symlink("..", name) },
		"no such file":                     func(name string) error { return os.Symlink("nowhere", name) },
		"is neither file nor directory: p": func(name string) error { return unix.Mkfifo(name, 0o600) },
	} {
		wrong := filepath.Join(root, "tree/sub/wrong")
		must(make(wrong))
		_, err := Local(func(b *Builder) error { return b.Dir("dir", os.DirFS(filepath.Join(root, "tree"))) })
		complain(t, name, err, `directory "dir": `, "sub/wrong", name)
		must(os.Remove(wrong))
	}
	_, err = Local(func(b *Builder) error { return b.Dir("dir", os.DirFS(filepath.Join(root, "missing"))) })
	complain(t, "missing", err, `directory "dir": `, "no such file")
}

func TestFileServer(t *testing.T) {
	when := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	large := strings.Repeat("0123456789", 30_000)
	handler := http.FileServerFS(dirOf(t, fstest.MapFS{
		"index.html": {Data: []byte("<h1>hello</h1>"), ModTime: when},
		"large.txt":  {Data: []byte(large), ModTime: when},
		"sub/x":      {Data: []byte("x")},
	}))
	get := func(path, key, value string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		if key != "" {
			r.Header.Set(key, value)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		path, key, value string
		status           int
		body             string
	}{
		{"/", "", "", 200, "<h1>hello</h1>"},
		{"/large.txt", "", "", 200, large},
		{"/large.txt", "Range", "bytes=10-14", 206, "01234"},
		{"/large.txt", "If-Modified-Since", when.Format(http.TimeFormat), 304, ""},
		{"/sub/", "", "", 200, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n<a href=\"x\">x</a>\n</pre>\n"},
		{"/missing", "", "", 404, "404 page not found\n"},
	} {
		if w := get(c.path, c.key, c.value); w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("GET %s %s: %d, %.100q", c.path, c.value, w.Code, w.Body)
		}
	}
}

func TestFileReadsAnywhere(t *testing.T) {
	file, err := dirOf(t, fstest.MapFS{"a": {Data: []byte("0123456789")}}).Open("a")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 3)
	if _, err := file.(io.ReaderAt).ReadAt(p, 4); err != nil || string(p) != "456" {
		t.Errorf("ReadAt: %q, %v", p, err)
	}
	if at, err := file.(io.Seeker).Seek(-2, io.SeekEnd); at != 8 || err != nil {
		t.Errorf("Seek: %d, %v", at, err)
	}
	var rest strings.Builder
	if n, err := file.(io.WriterTo).WriteTo(&rest); n != 2 || rest.String() != "89" {
		t.Errorf("WriteTo: %d, %q, %v", n, &rest, err)
	}
}

// TestFSDamaged: an index that no Dir has written is refused, wherever it is
// wrong, and does not lead anybody astray.
func TestFSDamaged(t *testing.T) {
	d := preloaded(t, func(b *Builder) error {
		return b.Dir("dir", fstest.MapFS{"a/b": {Data: []byte("x")}, "c": {Data: []byte("y")}})
	})
	s, p, err := d.section("dir", kindDir)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(entries []dirEntry){
		"name outside":         func(e []dirEntry) { e[1].nameAt = 1 << 40 },
		"long name":            func(e []dirEntry) { e[1].nameBytes = 1 << 30 },
		"content outside":      func(e []dirEntry) { e[2].content = 1 << 60 },
		"its own child":        func(e []dirEntry) { e[0].firstChild = 0 },
		"children missing":     func(e []dirEntry) { e[0].children = 1 },
		"children too many":    func(e []dirEntry) { e[1].children = 100 },
		"file with children":   func(e []dirEntry) { e[2].children = 1 },
		"root is a file":       func(e []dirEntry) { e[0].mode = 0o644 },
		"neither file nor dir": func(e []dirEntry) { e[2].mode = uint32(fs.ModeSocket) },
	} {
		damaged := append(make([]byte, 0, len(p)), p...)
		f, err := newFS(s, damaged)
		if err != nil {
			t.Fatal(err)
		}
		change(f.entries)
		if _, err := newFS(s, damaged); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
