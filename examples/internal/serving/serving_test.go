package serving

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/catamount-server/catamount"
)

func TestMain(m *testing.M) { Main(m) }

// What is left behind is found.
func TestLeaksAreFound(t *testing.T) {
	goroutines, descriptors := allGoroutines(), allDescriptors()
	if left := goroutines.left() + descriptors.left(); left != "" {
		t.Errorf("found without a leak:\n%s", left)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-end
	}()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if found := goroutines.fresh(); !strings.Contains(found, "TestLeaksAreFound") {
		t.Errorf("a goroutine was not found:\n%s", found)
	}
	if found := descriptors.fresh(); strings.Count(found, "pipe:") != 2 {
		t.Errorf("a pipe was not found: %s", found)
	}
	close(end)
	<-ended
	r.Close()
	w.Close()
	if left := goroutines.left() + descriptors.left(); left != "" {
		t.Errorf("found when the leak had ended:\n%s", left)
	}
}

func TestErrorsAreFound(t *testing.T) {
	l := newLog()
	logger := slog.New(l)
	logger.Warn("a warning", "n", 1)
	if len(l.Errors()) != 0 {
		t.Errorf("errors %q", l.Errors())
	}
	logger.Error("an error", "n", 2)
	if errors := l.Errors(); len(errors) != 1 || errors[0] != "an error n=2" {
		t.Errorf("errors %q", errors)
	}
	if text := l.String(); !strings.Contains(text, "a warning") || !strings.Contains(text, "an error") {
		t.Errorf("text %q", text)
	}
}

// A handler's panic is an error in the log of its server.
func TestPanicIsAnError(t *testing.T) {
	s := Start(t, &catamount.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug") })})
	if answer, err := s.Client.Get(s.URL); err == nil {
		t.Error(answer.Status)
	}
	Until(t, "the panic is logged", func() bool { return strings.Contains(fmt.Sprint(s.Log.Errors()), "a bug") })
	s.Log.errors = nil // or this test would fail
}
