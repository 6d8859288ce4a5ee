package catamount_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/catamount-server/catamount"

// floors is the statement of policy: which package may import what, besides
// the standard library. A package imports only lower floors, and the leaves
// of floor 0 do not import one another, so that each can be read, tested and
// replaced by itself. A change here is a change of the architecture; see
// docs/architecture.md.
//
// A row is "who: what ...". The last element of a name may be "*", which
// stands for any package below; a row also covers the packages inside its
// folder, and the longest matching row counts. "." is the root package, and
// "x[socket*.go]" allows x only in files of that name. A "#" starts a comment.
const floors = `
# 4: programs
cmd/*:           . internal/demo
examples/*:      . internal/demo

# 3: the public face
.:               cluster worker reactor threadpool parser internal/*

# 2: the master
cluster:         worker reactor threadpool parser internal/* golang.org/x/sys/unix

# 1: one serving process
worker:          reactor threadpool parser internal/*
worker:          golang.org/x/sys/unix[socket*.go] github.com/valyala/bytebufferpool

# 0: the leaves
reactor:         internal/* golang.org/x/sys/unix github.com/valyala/bytebufferpool
threadpool:      internal/* github.com/panjf2000/ants/v2
parser:          internal/*

# 0: small leaves that everyone may use; they use nobody
internal/*:      golang.org/x/sys/unix

# the demo app is for programs, and is an ordinary app: the standard library is enough
internal/demo:
`

// onlyPrograms lists what the rule for internal/* must not let in below the
// programs: the demo app is an app, not a leaf.
var onlyPrograms = []string{"internal/demo"}

func TestFloors(t *testing.T) {
	files, err := readSources(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found below the root of the module")
	}
	for _, complaint := range checkImports(parseFloors(t, floors), files) {
		t.Error(complaint)
	}
}

func TestPackageComments(t *testing.T) {
	files, err := readSources(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range checkComments(files) {
		t.Error(complaint)
	}
}

// TestFloorsComplain shows that the checks above can fail.
func TestFloorsComplain(t *testing.T) {
	policy := parseFloors(t, floors)
	for _, c := range []struct {
		pkg, file, imports string
		want               bool // want a complaint
	}{
		{"parser", "parse.go", "strings", false},
		{"parser", "parse.go", "internal/shm", false},
		{"parser", "parse.go", "reactor", true},
		{"parser", "parse.go", "golang.org/x/sys/unix", true},
		{"reactor", "epoll.go", "golang.org/x/sys/unix", false},
		{"reactor", "epoll.go", "golang.org/x/sys/cpu", true},
		{"reactor/reactortest", "fake.go", "reactor", false},
		{"reactor", "reactor.go", "internal/demo", true},
		{"threadpool", "threadpool.go", "github.com/panjf2000/ants/v2", false},
		{"worker", "pool.go", "github.com/panjf2000/ants/v2", true},
		{"worker", "client.go", "parser", false},
		{"worker", "client.go", "", true}, // the root itself
		{"worker", "client.go", "cluster", true},
		{"worker", "socket_linux.go", "golang.org/x/sys/unix", false},
		{"worker", "client.go", "golang.org/x/sys/unix", true},
		{"cluster", "spawn.go", "worker", false},
		{"", "server.go", "worker", false},
		{"", "server.go", "golang.org/x/sys/unix", true},
		{"", "server.go", "example.com/anything", true},
		{"cmd/catamount", "main.go", "", false},
		{"cmd/catamount", "main.go", "internal/demo", false},
		{"cmd/catamount", "main.go", "worker", true},
		{"examples/hello", "main.go", "internal/shm", true},
		{"internal/demo", "demo.go", "internal/shm", true},
		{"internal/shm", "shm.go", "internal/pipe", true},
		{"newcomer", "x.go", "net/http", true}, // no row: the table must say where it stands
	} {
		imported := c.imports
		if !strings.Contains(imported, ".") && imported != "strings" && imported != "net/http" {
			imported = path.Join(module, imported)
		}
		f := source{pkg: c.pkg, name: c.file, imports: []string{imported}}
		if got := len(checkImports(policy, []source{f})) > 0; got != c.want {
			t.Errorf("%q of %q imports %q: complaint %t, want %t", c.file, c.pkg, imported, got, c.want)
		}
	}

	undocumented := []source{{pkg: "parser", name: "a.go"}, {pkg: "worker", name: "b.go", comment: true}}
	if got := checkComments(undocumented); len(got) != 1 || !strings.Contains(got[0], "parser") {
		t.Errorf("checkComments = %q, want one complaint about parser", got)
	}
}

// A source is what the policy needs to know of one Go file.
type source struct {
	pkg     string // path below the module's root, "" for the root package
	name    string
	imports []string
	comment bool // it has a package comment
}

// readSources reads every non-test Go file of the module, whatever its build
// tags: a file for another system must keep to the floors as well. A folder
// with its own go.mod is another module.
func readSources(root fs.FS) ([]source, error) {
	var files []source
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p == "." {
				return nil
			}
			if name := d.Name(); name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_' {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(p, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		if !ignored(f) {
			files = append(files, newSource(p, f))
		}
		return nil
	})
	return files, err
}

// ignored reports whether f is a generator or the like, outside every package.
func ignored(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			if c.Text == "//go:build ignore" {
				return true
			}
		}
	}
	return false
}

func newSource(p string, f *ast.File) source {
	s := source{pkg: path.Dir(p), name: path.Base(p), comment: f.Doc != nil}
	if s.pkg == "." {
		s.pkg = ""
	}
	for _, spec := range f.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			s.imports = append(s.imports, name)
		}
	}
	return s
}

// A permission allows one import, perhaps only in files of one pattern.
type permission struct {
	what  string // full import path, or one that ends in "/*"
	files string // pattern of file names, "" for all
}

// parseFloors reads the table: from a package's path below the root to its
// permissions.
func parseFloors(t *testing.T, table string) map[string][]permission {
	t.Helper()
	policy := map[string][]permission{}
	for line := range strings.Lines(table) {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		who, what, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("floors: no colon in %q", line)
		}
		if who = strings.TrimSpace(who); who == "." {
			who = ""
		}
		rights := policy[who] // a row may be continued by another
		for _, word := range strings.Fields(what) {
			word, files, _ := strings.Cut(strings.TrimSuffix(word, "]"), "[")
			if !strings.Contains(strings.TrimPrefix(word, "."), ".") {
				word = path.Join(module, word)
			}
			rights = append(rights, permission{word, files})
		}
		policy[who] = rights
	}
	return policy
}

func checkImports(policy map[string][]permission, files []source) (complaints []string) {
	for _, f := range files {
		row, ok := rowOf(policy, f.pkg)
		if !ok {
			complaints = append(complaints, fmt.Sprintf("%s has no row in the table of floors", path.Join(module, f.pkg)))
			continue
		}
		for _, imported := range f.imports {
			if !f.mayImport(row, policy[row], imported) {
				complaints = append(complaints, fmt.Sprintf("%s imports %s: the table of floors does not allow it",
					path.Join(f.pkg, f.name), imported))
			}
		}
	}
	slices.Sort(complaints)
	return slices.Compact(complaints)
}

func (f source) mayImport(row string, rights []permission, imported string) bool {
	// Without a dot in its first element, a path belongs to the standard library.
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true
	}
	if home := path.Join(module, f.pkg); imported == home {
		return true
	}
	// A package and those inside its folder are one tenant.
	if row != "" && !strings.HasSuffix(row, "*") && covers(path.Join(module, row), imported) {
		return true
	}
	for _, r := range rights {
		if r.files != "" {
			if match, _ := filepath.Match(r.files, f.name); !match {
				continue
			}
		}
		if !matches(r.what, imported) {
			continue
		}
		if strings.HasSuffix(r.what, "*") && slices.Contains(onlyPrograms, strings.TrimPrefix(imported, module+"/")) {
			continue
		}
		return true
	}
	return false
}

// rowOf returns the longest row that covers pkg.
func rowOf(policy map[string][]permission, pkg string) (row string, ok bool) {
	for r := range policy {
		fits := r == pkg || (r != "" && (matches(r, pkg) || covers(r, pkg)))
		if fits && (!ok || len(r) > len(row)) {
			row, ok = r, true
		}
	}
	return row, ok
}

// covers reports whether p is folder or lies inside it.
func covers(folder, p string) bool {
	return p == folder || strings.HasPrefix(p, folder+"/")
}

// matches reports whether name is pattern, or lies below it when it ends in "/*".
func matches(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, below)
	}
	return pattern == name
}

// checkComments complains about packages without a package comment: the
// comment is where a reader starts.
func checkComments(files []source) (complaints []string) {
	documented := map[string]bool{}
	for _, f := range files {
		documented[f.pkg] = documented[f.pkg] || f.comment
	}
	for pkg, ok := range documented {
		if !ok {
			complaints = append(complaints, fmt.Sprintf("%s has no package comment", path.Join(module, pkg)))
		}
	}
	slices.Sort(complaints)
	return complaints
}
