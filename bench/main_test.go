package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/scenario"
)

// TestMain lets the test program be the processes that it starts, as bench
// does.
func TestMain(m *testing.M) {
	process.BeRole(scenario.Roles())
	os.Exit(m.Run())
}

func TestRefusals(t *testing.T) {
	for args, want := range map[string]string{
		"-servers apache":      `no server "apache", only catamount`,
		"-servers catamount,":  `no server ""`,
		"goodbye":              `no scenario "goodbye", only hello`,
		"-rounds -1":           "-rounds: -1 is negative",
		"-d 10ms":              "-d: 10ms is not whole seconds",
		"-d 1500ms":            "-d: 1.5s is not whole seconds",
		"-quick -d 2s":         "-d: -quick has its own duration",
		"-fast":                "flag provided but not defined",
		"-render -out nowhere": "nowhere has no results",
	} {
		err := run(t.Context(), strings.Fields(args), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
}

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	if got, err := choose("letter", []string{"c", "a"}, all); err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%v, error %v", got, err)
	}
	if got, err := choose("letter", nil, all); err != nil || !slices.Equal(got, all) {
		t.Errorf("%v, error %v", got, err)
	}
}

// TestFailures: a peer that fails is a finding, Catamount that fails an error.
func TestFailures(t *testing.T) {
	results := &result.Results{Sections: []result.Section{{Scenario: "hello", Samples: []result.Sample{{Server: "nbio", Error: "broken"}}}}}
	s := settings{scenarios: []string{"hello", "json"}}
	var out bytes.Buffer
	if err := failures(s, results, &out); err != nil || !strings.Contains(out.String(), "1 measurements of peers failed") {
		t.Errorf("error %v, told %q", err, &out)
	}
	results.Sections[0].Samples[0].Server = "catamount-blocking"
	if err := failures(s, results, &out); err == nil {
		t.Error("a failure of Catamount is no error")
	}
}

func TestList(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-list"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hello ", "slowhandlers ", "catamount-blocking ", "the floor"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestQuick measures, merges and renders for real, with few servers; CI runs
// all of them.
func TestQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds of load")
	}
	directory := filepath.Join(t.TempDir(), "new")
	var out bytes.Buffer
	for _, scenarios := range [][]string{{"idle"}, {"hello", "slowclients"}} {
		args := append([]string{"-quick", "-out", directory, "-servers", "catamount,nethttp"}, scenarios...)
		if err := run(t.Context(), args, &out); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
	}
	results, err := result.Load(directory)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range results.Sections {
		names = append(names, s.Scenario)
		if !s.Quick || s.Machine.Kernel == "" || len(s.Versions) != 2 || len(s.Failed()) > 0 {
			t.Errorf("%s: %+v", s.Scenario, s)
		}
	}
	if want := []string{"hello", "idle", "slowclients"}; !slices.Equal(names, want) {
		t.Errorf("the results have %v, want %v", names, want)
	}
	// One each; a connection from before may not have ended when they were counted.
	if got := results.Find("idle").Series("100 idle", "nethttp", "goroutines").Median(); got < 0.9 || got > 1.1 {
		t.Errorf("net/http has %v goroutines for an idle connection", got)
	}
	if err := os.Remove(filepath.Join(directory, "report.md")); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-render", "-out", directory}, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(directory, "report.md")); err != nil {
		t.Error(err)
	}
}
