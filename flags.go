package catamount

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/catamount-server/catamount/cluster"
)

// FlagsHelp describes the flags and environment variables that ParseFlags
// reads.
const FlagsHelp = `Flags:
  -b, --bind URI          listen on tcp://host:port or unix:///path; may be
                          repeated
  -p, --port PORT         listen on this port of the default host; 0 takes a free
                          one
  -w, --workers COUNT     so many processes serve, under a master; "auto" is one
                          for each processor; 0 is single mode (the default)
  -t, --threads MIN:MAX   bounds of the thread pool of each worker; N stands for
                          N:N (default 0:256)
  --queue-requests=false  blocking mode: a thread reads its client's request
                          itself, instead of the reactor (Puma's queue_requests)
  -q, --quiet             print no banner, log warnings and errors only
  -v, --log-requests      log each request
  -S, --state PATH        write the state file there
  --pidfile PATH          write the pid there
  --tag NAME              text in the processes' titles
  --dir DIR               run in this directory
  -V, --version           print the version
  -h, --help              print this text

Environment, where no flag says otherwise:
  PORT                    as --port
  WEB_CONCURRENCY         as --workers
  MIN_THREADS, MAX_THREADS
                          bounds of the thread pool

Signals: TERM and INT stop, QUIT prints the stacks of all goroutines; with
workers USR1 is a phased restart, USR2 a hot restart, TTIN and TTOU start and
end a worker.
`

// ErrVersion is what ParseFlags returns when the version was asked for.
var ErrVersion = errors.New("catamount: version requested")

// ParseFlags reads Puma's flags into a copy of base, and the environment, by
// getenv, where there is no flag. The Server of base is not copied, but changed.
// Its errors name the flag or the variable and
// the reason; flag.ErrHelp means that help was asked for, see FlagsHelp.
func ParseFlags(args []string, getenv func(string) string, base Config) (Config, error) {
	p := flagParser{config: base, set: flag.NewFlagSet("", flag.ContinueOnError)}
	if base.Server == nil {
		p.config.Server = new(Server)
	}
	if base.DefaultHost == "" {
		p.config.DefaultHost = "0.0.0.0"
	}
	p.define()
	p.set.SetOutput(io.Discard) // the caller prints the error, on one line
	if err := p.set.Parse(args); err != nil {
		return Config{}, err
	}
	if p.version {
		return Config{}, ErrVersion
	}
	if extra := p.set.Arg(0); extra != "" || p.set.NArg() > 0 {
		// The flag package ends at "--queue-requests false": say what was meant.
		return Config{}, fmt.Errorf("unexpected argument %q (the value of a switch is given as --switch=value)", extra)
	}
	if err := p.environment(getenv); err != nil {
		return Config{}, err
	}
	return p.config, nil
}

type flagParser struct {
	set     *flag.FlagSet
	config  Config
	binds   []string
	given   map[string]bool // which settings a flag has set
	version bool
}

func (p *flagParser) define() {
	p.given = make(map[string]bool)
	value := func(short, long string, set func(string) error) {
		note := func(s string) error {
			p.given[long] = true
			return set(s)
		}
		if short != "" {
			p.set.Func(short, "", note)
		}
		p.set.Func(long, "", note)
	}
	text := func(short, long string, where *string) {
		value(short, long, func(s string) error { *where = s; return nil })
	}
	c := &p.config
	value("b", "bind", func(s string) error { return p.addBind(s) })
	value("p", "port", func(s string) error {
		if err := cluster.CheckPort(s); err != nil {
			return err
		}
		return p.addBind(cluster.TCPBind(c.DefaultHost, s).String())
	})
	value("w", "workers", func(s string) (err error) { c.Workers, err = parseWorkers(s); return err })
	value("t", "threads", func(s string) (err error) {
		c.Server.MinThreads, c.Server.MaxThreads, err = parseThreads(s)
		return err
	})
	p.set.BoolFunc("queue-requests", "", func(s string) error {
		queue, err := strconv.ParseBool(s)
		c.Server.QueueRequests = &queue
		return err
	})
	text("S", "state", &c.StateFile)
	text("", "pidfile", &c.Pidfile)
	text("", "tag", &c.Tag)
	text("", "dir", &c.Directory)
	for _, name := range []string{"q", "quiet"} {
		p.set.BoolVar(&c.Quiet, name, c.Quiet, "")
	}
	for _, name := range []string{"v", "log-requests"} {
		p.set.BoolVar(&c.LogRequests, name, c.LogRequests, "")
	}
	for _, name := range []string{"V", "version"} {
		p.set.BoolVar(&p.version, name, false, "")
	}
}

// addBind: the first bind of the flags takes the place of those before.
func (p *flagParser) addBind(s string) error {
	_, err := cluster.ParseBind(s)
	p.binds = append(p.binds, s)
	p.config.Binds = p.binds
	return err
}

// environment has less to say than the flags, and blank variables nothing.
func (p *flagParser) environment(getenv func(string) string) error {
	wrong := func(name, value string, err error) error {
		return fmt.Errorf("invalid value %q of the environment variable %s: %w", value, name, err)
	}
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	c := &p.config
	if s := get("PORT"); s != "" && len(p.binds) == 0 {
		if err := cluster.CheckPort(s); err != nil {
			return wrong("PORT", s, err)
		}
		c.Binds = []string{cluster.TCPBind(c.DefaultHost, s).String()}
	}
	if s := get("WEB_CONCURRENCY"); s != "" && !p.given["workers"] {
		var err error
		if c.Workers, err = parseWorkers(s); err != nil {
			return wrong("WEB_CONCURRENCY", s, err)
		}
	}
	if p.given["threads"] {
		return nil
	}
	for name, where := range map[string]*int{"MIN_THREADS": &c.Server.MinThreads, "MAX_THREADS": &c.Server.MaxThreads} {
		if s := get(name); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || name == "MAX_THREADS" && n < 1 {
				return wrong(name, s, errors.New("want a whole number"))
			}
			*where = n
		}
	}
	return nil
}

// parseWorkers reads a number of workers, or "auto".
func parseWorkers(s string) (int, error) {
	if s == "auto" {
		return AutoWorkers, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New(`want a number of workers or "auto"`)
	}
	return n, nil
}

// parseThreads reads Puma's notation: "min:max", or "n" for "n:n".
func parseThreads(s string) (low, high int, err error) {
	first, second, both := strings.Cut(s, ":")
	if !both {
		second = first
	}
	low, err1 := strconv.Atoi(first)
	high, err2 := strconv.Atoi(second)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, errors.New("want MIN:MAX or one number, in whole numbers")
	case low < 0:
		return 0, 0, fmt.Errorf("the minimum %d is less than 0", low)
	case high < 1:
		return 0, 0, fmt.Errorf("the maximum %d is less than 1", high)
	case low > high:
		return 0, 0, fmt.Errorf("the minimum %d is more than the maximum %d", low, high)
	}
	return low, high, nil
}
