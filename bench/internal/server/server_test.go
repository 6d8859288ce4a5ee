package server

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/catamount-server/catamount/bench/internal/process"
)

// TestMain lets the test program be the servers that it starts, as bench does.
func TestMain(m *testing.M) {
	process.BeRole(map[string]process.Role{RoleName: Role, ClusterRole: BeCluster})
	os.Exit(m.Run())
}

// TestCannedAnswers: the limits answer as many bytes as Catamount, or their
// cost could not be compared.
func TestCannedAnswers(t *testing.T) {
	for app, request := range map[string]string{
		Hello:   "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
		Goodbye: "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
	} {
		r, err := Start(Spec{Server: "catamount", App: app, Threads: 4, Workers: 1, Directory: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Stop()
		answer, err := r.Exchange([]byte(request), "GET")
		if err != nil {
			t.Fatal(err)
		}
		if got := len(canned(app)); got != answer.Size {
			t.Errorf("%s: %d bytes, of Catamount %d", app, got, answer.Size)
		}
	}
}

// TestEveryServerAnswersEachOfItsApps: the same bytes from all.
func TestEveryServerAnswersEachOfItsApps(t *testing.T) {
	directory := t.TempDir()
	if err := WriteFile(directory); err != nil {
		t.Fatal(err)
	}
	for _, s := range All() {
		for _, app := range slices.Concat(s.Apps, []string{Big + BigPath}) {
			t.Run(s.Name+"/"+app, func(t *testing.T) {
				app, path := app, "/"
				if app == Big+BigPath {
					app, path = Big, BigPath
				}
				if !s.Answers(app) {
					t.Skip("has no such app")
				}
				if s.Version() == "" {
					t.Skip("not installed")
				}
				r, err := Start(Spec{Server: s.Name, App: app, Threads: 4, Workers: 1, Directory: directory})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Stop()
				request, size := "GET "+path+" HTTP/1.1\r\nHost: test\r\n\r\n", 0
				switch app {
				case Upload:
					size = 5000
					request = fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
				case Goodbye:
					request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
				}
				answer, err := r.Exchange([]byte(request), "GET")
				if err != nil {
					t.Fatal(err)
				}
				if err := answer.Check(app, path, size); err != nil {
					t.Error(err)
				}
				if usage, err := r.Usage(); err != nil || usage.Total <= 0 {
					t.Errorf("CPU time %+v, error %v", usage, err)
				}
				if m, err := r.Memory(); err != nil || m.PSS <= 0 {
					t.Errorf("memory %+v, error %v", m, err)
				}
			})
		}
	}
}
