package catamount_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// pipeListener hands out connections that are no sockets at all.
type pipeListener struct {
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case err := <-l.errs:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (l *pipeListener) dial(t testing.TB) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	_ = ours.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { ours.Close() })
	select {
	case l.conns <- theirs:
	case <-time.After(patience):
		t.Fatal("nobody accepts")
	}
	return ours
}

func TestPipeListener(t *testing.T) {
	l := newPipeListener()
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s [%s]", r.RemoteAddr, r.Method, body)
	})}
	serveOn(t, s, l)
	for range 3 {
		answer := talk(t, l.dial(t), withLength("5")+"hello"+request("GET / HTTP/1.1", "Host: h", "Connection: close"))
		answers := describeAnswers(answer, nil)
		if len(answers) != 2 || !strings.HasSuffix(answers[0], "pipe POST [hello]") || !strings.HasSuffix(answers[1], "close pipe GET []") {
			t.Errorf("answers %q", answers)
		}
	}
}

// The last answer of a connection arrives whole, however slowly it is read: a
// pipe has no buffer, so that every byte waits for the reader.
func TestBridgeKeepsTheLastAnswer(t *testing.T) {
	big := strings.Repeat("x", 150_000)
	handled := make(chan struct{}, 1)
	l := newPipeListener()
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		_, _ = io.WriteString(w, big)
		handled <- struct{}{}
	})}
	serveOn(t, s, l)
	for name, last := range map[string]string{
		"close": request("GET / HTTP/1.1", "Host: h", "Connection: close"),
		"400":   "GET / HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				conn := l.dial(t)
				if _, err := io.WriteString(conn, last); err != nil {
					t.Fatal(err)
				}
				waitFor(t, handled)
				// As far as the server is concerned all is done.
				until(t, "the server closes its side", func() bool {
					connections := s.Stats().Connections
					return len(connections) == 0 || connections["lingering"] == 1
				})
				output, err := io.ReadAll(conn)
				if head, body, _ := strings.Cut(string(output), "\r\n\r\n"); err != nil || !strings.HasPrefix(body, big) {
					t.Fatalf("%d of %d bytes arrived, %v; head %q", len(body), len(big), err, head)
				}
				conn.Close()
			}
		})
	}
}

// A client that takes nothing is given up behind a bridge, too: nothing of it
// stays.
func TestBridgeGivesUpOnDeadClient(t *testing.T) {
	l := newPipeListener()
	s := &catamount.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 8<<20))
		}),
		WriteTimeout: 100 * time.Millisecond, LingerTimeout: 100 * time.Millisecond,
	}
	serveOn(t, s, l)
	conn := l.dial(t)
	if _, err := io.WriteString(conn, get11); err != nil {
		t.Fatal(err)
	}
	until(t, "the server gives up", func() bool { return s.Stats().WriteErrors["deadline"] == 1 && len(s.Stats().Connections) == 0 })
	until(t, "the bridge is gone", func() bool { return !strings.Contains(stacks(), "(*bridge)") })
}

func TestTLS(t *testing.T) {
	config, client := testTLS(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || !r.TLS.HandshakeComplete || r.TLS.ServerName != "catamount.test" {
			t.Errorf("r.TLS = %+v", r.TLS)
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d bytes from %s", len(body), r.RemoteAddr)
	})}
	serveOn(t, s, tls.NewListener(inner, config))
	for _, size := range []int{0, 5, 1 << 20} {
		conn := tls.Client(dial(t, "tcp", inner.Addr().String()), client)
		body := strings.Repeat("x", size)
		answer := talk(t, conn, request("POST / HTTP/1.1", "Host: h", "Connection: close", "Content-Length: "+fmt.Sprint(size))+body)
		if want := fmt.Sprintf("%d bytes from %v", size, conn.LocalAddr()); !strings.HasSuffix(answer, want) {
			t.Errorf("answer %q, want %q", answer, want)
		}
	}
	// A client that speaks no TLS harms nobody.
	plain := dial(t, "tcp", inner.Addr().String())
	_, _ = io.WriteString(plain, get11)
	_, _ = io.ReadAll(plain)
	if n := s.Stats().RequestsCount; n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// Shutdown waits for connections whose handshake has begun: their clients have
// seen the port open, and send their request next.
func TestShutdownDuringHandshake(t *testing.T) {
	config, client := testTLS(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, proceed := make(chan struct{}), make(chan struct{})
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		close(begun)
		waitFor(t, proceed)
		return nil, nil
	}
	s := &catamount.Server{Handler: http.HandlerFunc(hello)}
	served, ended := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(tls.NewListener(inner, config)) }()
	conn := tls.Client(dial(t, "tcp", inner.Addr().String()), client)
	answer := make(chan string, 1)
	go func() { answer <- talk(t, conn, get11) }()
	waitFor(t, begun)
	go func() { ended <- s.Shutdown(t.Context()) }()
	if err := waitFor(t, served); err != http.ErrServerClosed {
		t.Errorf("Serve = %v", err)
	}
	close(proceed)
	if got := waitFor(t, answer); !strings.HasSuffix(got, "Hello, World!") || !strings.Contains(got, "Connection: close") {
		t.Errorf("answer %q", got)
	}
	if err := waitFor(t, ended); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// A hijacked connection belongs to the handler with everything behind it.
func TestHijackOverTLS(t *testing.T) {
	config, client := testTLS(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		line, err := rw.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintf(rw, "%s to %v", line, conn.RemoteAddr())
		_ = rw.Flush()
		conn.Close()
	})}
	serveOn(t, s, tls.NewListener(inner, config))
	outer := dial(t, "tcp", inner.Addr().String())
	conn := tls.Client(outer, client)
	if answer, want := talk(t, conn, get11+"echo\n"), fmt.Sprintf("echo\n to %v", conn.LocalAddr()); answer != want {
		t.Errorf("answer %q, want %q", answer, want)
	}
	// Not only TLS says that it is over: the connection is.
	if b, err := io.ReadAll(outer); err != nil || len(b) > 0 {
		t.Errorf("behind the end: %q, %v", b, err)
	}
}

// temporary is what net/http's documentation has of errors to wait out.
type temporary struct{}

func (temporary) Error() string   { return "for now" }
func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return false }

func TestAcceptErrors(t *testing.T) {
	l := newPipeListener()
	s := &catamount.Server{Handler: http.HandlerFunc(hello), Logger: slog.New(slog.DiscardHandler)}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for range 2 {
		l.errs <- temporary{}
	}
	answer := talk(t, l.dial(t), request("GET / HTTP/1.1", "Host: h", "Connection: close"))
	if !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("answer %q after temporary errors", answer)
	}
	if n := s.Stats().Paused; n != 2 {
		t.Errorf("%d pauses, want 2", n)
	}
	final := fmt.Errorf("for good")
	l.errs <- final
	if err := waitFor(t, served); err != final {
		t.Errorf("Serve = %v, want %v", err, final)
	}
	end(t, s)
}

// In blocking mode nobody is accepted for whom there is no place, whatever
// kind of listener brings him; and accepting goes on afterwards.
func TestBlockingPipeListener(t *testing.T) {
	l := newPipeListener()
	s := &catamount.Server{Handler: http.HandlerFunc(hello), QueueRequests: new(false), MaxThreads: 1}
	serveOn(t, s, l)
	for range 300 {
		answer := talk(t, l.dial(t), request("GET / HTTP/1.1", "Host: h"))
		if !strings.HasSuffix(answer, "Hello, World!") {
			t.Fatalf("answer %q", answer)
		}
	}
}

// testTLS makes a certificate, and a client's configuration that trusts it.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"catamount.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "catamount.test"}
}
