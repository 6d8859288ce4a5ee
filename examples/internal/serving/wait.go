package serving

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come. Only a failing test
// takes that long.
const Patience = 20 * time.Second

// WaitFor returns what the channel brings, and fails the test when nothing
// comes.
func WaitFor[V any](t testing.TB, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		t.Fatalf("nothing came\n%s", Stacks())
		panic("unreachable")
	}
}

// Until waits for a condition that nobody reports.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !settle(holds) {
		t.Fatalf("never: %s", what)
	}
}

// Get asks for a path and reads the whole answer.
func (s *Server) Get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return s.Do(t, NewRequest(t, http.MethodGet, s.URL+path, nil))
}

// Do sends a request and reads the whole answer.
func (s *Server) Do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	answer, err := s.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %s, %d bytes and %v", r.Method, r.URL, answer.Status, len(body), err)
	}
	return answer, string(body)
}

// NewRequest makes a request that ends with the test. Fields are names and
// values of the header by turns.
func NewRequest(t testing.TB, method, url string, body io.Reader, fields ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}
