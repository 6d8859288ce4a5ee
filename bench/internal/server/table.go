package server

import (
	"net"
	"runtime/debug"
	"slices"

	"github.com/catamount-server/catamount"
)

// Kind parts the servers.
type Kind string

// The kinds.
const (
	Ours  Kind = "catamount"
	Peer  Kind = "peer"
	Limit Kind = "limit" // canned bytes: no HTTP, and what is left to win
)

// Server is a row of the table.
type Server struct {
	Name  string
	Kind  Kind
	About string
	Apps  []string // those that it can answer

	module    string                                      // whose version is the server's; "": ours or Go's
	listener  func(net.Listener, Spec, *content) error    // serves a listener,
	addressed func(addr string, s Spec, c *content) error // or binds by itself,
	program   *program                                    // or is a program,
	cluster   bool                                        // or is this program as a master with workers
}

var (
	handlerApps = []string{Hello, Goodbye, JSON, Upload, Download, File, Big, Sleep, Park}
	cannedApps  = []string{Hello, Goodbye}
)

// All returns the table, in the order of the reports.
func All() []Server {
	nginx, puma := nginx(), puma()
	return []Server{
		{Name: "catamount", Kind: Ours, Apps: handlerApps, listener: serveCatamount,
			About: "one worker, with its reactor"},
		{Name: "catamount-blocking", Kind: Ours, Apps: handlerApps, listener: serveBlocking,
			About: "QueueRequests false: a place of the pool belongs to a connection"},
		{Name: "catamount-cluster", Kind: Ours, Apps: without(handlerApps, Park), cluster: true,
			About: "a master with workers, on one processor like the others: two, where no row says otherwise"},
		{Name: "nethttp", Kind: Peer, Apps: handlerApps, listener: serveStandard,
			About: "the standard library's http.Server"},
		{Name: "fasthttp", Kind: Peer, Apps: handlerApps, module: "github.com/valyala/fasthttp", listener: serveFasthttp,
			About: "a goroutine per connection, requests that are used again"},
		{Name: "nbio", Kind: Peer, Apps: without(handlerApps, Big, Park), module: "github.com/lesismal/nbio", addressed: serveNbio,
			About: "an epoll loop that runs http.Handler"},
		{Name: "hertz", Kind: Peer, Apps: handlerApps, module: "github.com/cloudwego/hertz", addressed: serveHertz,
			About: "CloudWeGo's framework on netpoll"},
		{Name: "gnet", Kind: Limit, Apps: cannedApps, module: "github.com/panjf2000/gnet/v2", addressed: serveGnet,
			About: "an event loop that answers canned bytes: a limit, not a server"},
		{Name: "epoll", Kind: Limit, Apps: cannedApps, listener: serveEpoll,
			About: "a bare epoll loop that answers canned bytes: the floor"},
		{Name: "nginx", Kind: Peer, Apps: []string{Hello, Goodbye, File}, program: &nginx,
			About: "one worker process (Debian: nginx-light)"},
		{Name: "puma", Kind: Peer, Apps: without(handlerApps, Park), program: &puma,
			About: "Puma with a Rack app, one process (Debian: puma)"},
	}
}

func without(apps []string, not ...string) []string {
	return slices.DeleteFunc(slices.Clone(apps), func(app string) bool { return slices.Contains(not, app) })
}

// Find returns the server of a name.
func Find(name string) (Server, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Server{}, false
}

// Names returns the names of all servers.
func Names() []string {
	var names []string
	for _, s := range All() {
		names = append(names, s.Name)
	}
	return names
}

// Answers reports whether the server has the app.
func (s Server) Answers(app string) bool { return slices.Contains(s.Apps, app) }

// Version returns the server's version, "" when it is not installed.
func (s Server) Version() string {
	switch {
	case s.program != nil:
		return s.program.version()
	case s.module != "":
		return moduleVersion(s.module)
	case s.Kind == Ours:
		return catamount.Version
	}
	return "Go's own"
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, module := range info.Deps {
			if module.Path == path {
				return module.Version
			}
		}
	}
	return "unknown"
}
