package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/report"
	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/scenario"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// settings are what the flags say.
type settings struct {
	scenarios []string
	servers   []string
	rounds    int
	duration  time.Duration
	quick     bool
	list      bool
	render    bool
	out       string // directory
	documents []string
}

// quickDuration is long enough for some answers of everyone.
const quickDuration = 150 * time.Millisecond

func main() {
	process.BeRole(scenario.Roles())
	// At an interrupt the measurement that runs is finished, and all that was
	// started ends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return // the flag package has printed it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.list {
		return list(out)
	}
	results, err := result.Load(s.out)
	if err != nil {
		return err
	}
	if s.render && len(results.Sections) == 0 {
		return fmt.Errorf("%s has no results", s.out)
	}
	if !s.render {
		if err := measureAll(ctx, s, results, out); err != nil {
			return err
		}
	}
	if err := report.Write(s.out, results); err != nil {
		return err
	}
	for _, path := range s.documents {
		if err := report.Fill(path, results); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%s has report.md, report.html and %s\n", s.out, result.FileName)
	return failures(s, results, out)
}

func parse(args []string) (s settings, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: go -C bench run . [flags] [scenario ...]\n\nScenarios: %s (all when none is named)\n\n", strings.Join(scenario.Names(), ", "))
		fs.PrintDefaults()
	}
	servers := fs.String("servers", "", "comma-separated `names` of servers, of "+strings.Join(server.Names(), ", ")+" (default all)")
	documents := fs.String("fill", "", "comma-separated `files` of Markdown in which the parts between bench's marks are written anew")
	fs.BoolVar(&s.list, "list", false, "list the scenarios and servers, and run nothing")
	fs.BoolVar(&s.quick, "quick", false, "show in under two minutes that every scenario works; the figures mean nothing")
	fs.BoolVar(&s.render, "render", false, "write the reports anew from the results in -out, and run nothing")
	fs.IntVar(&s.rounds, "rounds", 0, "rounds (default each scenario's own, 2 to 4)")
	fs.DurationVar(&s.duration, "d", time.Second, "duration of one measurement, in whole seconds; not with -quick")
	fs.StringVar(&s.out, "out", "report", "`directory` of the report; scenarios that are in its results already and are not run now stay")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if s.rounds < 0 {
		return s, fmt.Errorf("-rounds: %d is negative", s.rounds)
	}
	if s.duration < time.Second || s.duration%time.Second != 0 {
		return s, fmt.Errorf("-d: %v is not whole seconds", s.duration)
	}
	if s.quick {
		given := false
		fs.Visit(func(f *flag.Flag) { given = given || f.Name == "d" })
		if given {
			return s, errors.New("-d: -quick has its own duration")
		}
		s.duration = quickDuration
	}
	if s.scenarios, err = choose("scenario", fs.Args(), scenario.Names()); err != nil {
		return s, err
	}
	var names []string
	if *servers != "" {
		names = strings.Split(*servers, ",")
	}
	if s.servers, err = choose("server", names, server.Names()); err != nil {
		return s, fmt.Errorf("-servers: %w", err)
	}
	if *documents != "" {
		s.documents = strings.Split(*documents, ",")
	}
	return s, nil
}

// choose returns the chosen names in the order of all, and all when none is
// chosen.
func choose(kind string, chosen, all []string) ([]string, error) {
	if len(chosen) == 0 {
		return all, nil
	}
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no %s %q, only %s", kind, name, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !slices.Contains(chosen, name) }), nil
}

func list(out io.Writer) error {
	fmt.Fprintln(out, "scenarios:")
	for _, s := range scenario.All(false) {
		fmt.Fprintf(out, "  %-13s %s\n", s.Name, s.Question)
	}
	fmt.Fprintln(out, "\nservers:")
	for _, s := range server.All() {
		version := s.Version()
		if version == "" {
			version = "not installed"
		}
		fmt.Fprintf(out, "  %-19s %-14s %s\n", s.Name, version, s.About)
	}
	return nil
}

// measureAll runs the scenarios, and saves the results after each.
func measureAll(ctx context.Context, s settings, results *result.Results, out io.Writer) error {
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "catamount-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // nginx reads its file as another user
		return err
	}
	if err := server.WriteFile(scratch); err != nil {
		return err
	}
	describe(out)
	start := time.Now()
	how := scenario.Settings{
		Servers: s.servers, Rounds: s.rounds, Duration: s.duration, Quick: s.quick, Directory: scratch, Wrk: load.WrkVersion() != "",
		Progress: func(name, row, server string, round, rounds int, outcome string) {
			fmt.Fprintf(out, "%5.0f s  %-12s %-22s %d/%d  %-19s %s\n", time.Since(start).Seconds(), name, row, round, rounds, server, outcome)
		},
	}
	for _, name := range s.scenarios {
		one, _ := scenario.Find(name, s.quick) // chosen among them
		if !one.TakesPart(s.servers) {
			fmt.Fprintf(out, "%s: none of these servers takes part; what the results have of it stays\n", name)
			continue
		}
		section, err := scenario.Run(ctx, one, how)
		if err != nil {
			return fmt.Errorf("%s: %w; the scenarios before it are saved in %s", name, err, s.out)
		}
		results.Merge(section, scenario.Names())
		if err := results.Save(s.out); err != nil {
			return err
		}
	}
	return nil
}

func describe(out io.Writer) {
	processors := process.Processors()
	if len(processors) > 1 {
		fmt.Fprintf(out, "servers run on processor %d, with GOMAXPROCS=1; the load runs on processor %d\n",
			processors[process.ServerSide], processors[process.LoadSide])
		return
	}
	fmt.Fprintln(out, "ONE PROCESSOR ONLY: servers and load take it from each other; do not compare these figures")
}

// failures is an error when measurements of Catamount failed in this run. That
// a peer failed is a finding, which the report has.
func failures(s settings, results *result.Results, out io.Writer) error {
	ours, others := 0, 0
	for _, name := range s.scenarios {
		section := results.Find(name)
		if section == nil || s.render {
			continue
		}
		for _, sample := range section.Failed() {
			if one, ok := server.Find(sample.Server); ok && one.Kind == server.Ours {
				ours++
			} else {
				others++
			}
		}
	}
	if others > 0 {
		fmt.Fprintf(out, "%d measurements of peers failed; the report says which\n", others)
	}
	if ours > 0 {
		return fmt.Errorf("%d measurements of Catamount failed; the report says which", ours)
	}
	return nil
}
