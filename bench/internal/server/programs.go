package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A program is a server that is installed on the machine and started with
// files of settings.
type program struct {
	command string
	files   map[string]string // written to a directory of its own; see expand
	args    []string
}

const nginxConf = `{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr error;
events { worker_connections 19000; }
http {
	access_log off;
	server_tokens off;
	keepalive_requests 1000000000;
	keepalive_timeout 1h;
	sendfile on;
	tcp_nopush on;
	client_body_temp_path {directory}/body;
	proxy_temp_path {directory}/proxy;
	fastcgi_temp_path {directory}/fastcgi;
	uwsgi_temp_path {directory}/uwsgi;
	scgi_temp_path {directory}/scgi;
	server {
		listen {addr} backlog=4096;
		default_type "{type}";
		location / {
			{answer}
		}
	}
}
`

const pumaSettings = `bind "tcp://{addr}?backlog=4096"
threads {threads}, {threads}
workers 0
environment "production"
log_requests false
quiet
`

const rackup = `HELLO = "Hello, World!".freeze
PLAIN = { "content-type" => "text/plain; charset=utf-8" }.freeze
BINARY = { "content-type" => "application/octet-stream" }.freeze
PATTERN = "The quick brown fox jumps over the lazy dog, and the catamount looks on patiently.\n".freeze
def pattern(n) = (PATTERN * (n / PATTERN.bytesize + 1)).byteslice(0, n).freeze
DOWNLOAD = pattern({download})

require "json"
def records
  (1..20).map { |i| { id: i, name: "Name #{i}", email: "name#{i}@example.org", tags: %w[new unread], score: i - 0.5 } }
end

# A body that Puma sends itself: by its path.
class Sent
  def initialize(path) = @path = path
  def to_path = @path
  def each = yield(File.binread(@path))
end

hello = ->(env) { [200, PLAIN.dup, [HELLO]] }
big = ->(env) { [200, BINARY.merge("content-length" => DOWNLOAD.bytesize.to_s), [DOWNLOAD]] }
run({
  "hello" => hello,
  "goodbye" => hello,
  "json" => ->(env) { [200, { "content-type" => "application/json" }, [JSON.generate(records)]] },
  "upload" => lambda { |env|
    n = 0
    while (piece = env["rack.input"].read(65_536)) do n += piece.bytesize end
    [200, PLAIN.dup, [n.to_s]]
  },
  "download" => big,
  "file" => ->(env) { [200, BINARY.merge("content-length" => "{filesize}"), Sent.new("{file}")] },
  "big" => ->(env) { env["PATH_INFO"] == "/big" ? big.(env) : hello.(env) },
  "sleep" => ->(env) { sleep({sleep}); hello.(env) },
}.fetch("{app}"))
`

func nginx() program {
	return program{command: "nginx", files: map[string]string{"nginx.conf": nginxConf},
		args: []string{"-c", "{directory}/nginx.conf", "-e", "stderr"}}
}

func puma() program {
	return program{command: "puma", files: map[string]string{"puma.rb": pumaSettings, "config.ru": rackup},
		args: []string{"-C", "{directory}/puma.rb", "{directory}/config.ru"}}
}

// expand fills in the words in braces.
func expand(text, addr, directory string, spec Spec) string {
	kind, answer, size := plainText, `return 200 "Hello, World!";`, DownloadSize
	switch spec.App {
	case File:
		kind, answer = binaryType, "root "+spec.Directory+"; try_files /"+filepath.Base(FileIn(spec.Directory))+" =404;"
	case Big:
		size = BigSize
	}
	user := "" // as root, the worker process would give up the right to read the bench's file
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	return strings.NewReplacer("{user}", user, "{addr}", addr, "{directory}", directory, "{type}", kind, "{answer}", answer, "{app}", spec.App,
		"{threads}", fmt.Sprint(spec.Threads), "{download}", fmt.Sprint(size), "{filesize}", fmt.Sprint(FileSize),
		"{file}", FileIn(spec.Directory), "{sleep}", fmt.Sprint(SleepTime.Seconds())).Replace(text)
}

// start starts the program on addr. What it returns ends it.
func (p program) start(addr string, spec Spec) (pid int, stop func(), err error) {
	directory, err := os.MkdirTemp(spec.Directory, p.command)
	if err != nil {
		return 0, nil, err
	}
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(expand(text, addr, directory, spec)), 0o644); err != nil {
			return 0, nil, err
		}
	}
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = expand(arg, addr, directory, spec)
	}
	path, err := find(p.command)
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = directory
	pid, end, err := startGroup(cmd)
	if err != nil {
		return 0, nil, err
	}
	return pid, func() {
		end()
		os.RemoveAll(directory)
	}, nil
}

// startGroup starts a command in a process group of its own. stop ends it, and
// its whole group when it does not end by itself.
func startGroup(cmd *exec.Cmd) (pid int, stop func(), err error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(5*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer killer.Stop()
		cmd.Wait() // how it took the signal does not matter
	}, nil
}

// find looks in sbin too, where users that are not root have no path to.
func find(command string) (string, error) {
	path, err := exec.LookPath(command)
	if errors.Is(err, exec.ErrNotFound) {
		return exec.LookPath("/usr/sbin/" + command)
	}
	return path, err
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// version asks the program for its version; "" when it is not installed.
func (p program) version() string {
	path, err := find(p.command)
	if err != nil {
		return ""
	}
	flag := "-v"
	if p.command == "puma" {
		flag = "-V"
	}
	output, err := exec.Command(path, flag).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	if number := versionNumber.FindString(string(output)); number != "" {
		return number
	}
	return "unknown"
}

// freeAddress returns an address that nobody listens on, for servers that
// cannot be given a listener.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// awaitListener returns once addr takes connections.
func awaitListener(addr string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		conn, err := net.DialTimeout("tcp4", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not listen after %v: %w", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
