package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/scenario"
)

// results have all scenarios, with figures that follow from the server's place
// in its row, and one failure.
func results() *result.Results {
	r := &result.Results{}
	for _, s := range scenario.All(false) {
		section := result.Section{Scenario: s.Name, Rounds: 2, Duration: time.Second, Load: "wrk 1",
			Time: time.Date(2027, 1, 2, 3, 4, 0, 0, time.UTC), Machine: measure.Machine{CPU: "A <CPU> & more", Processors: 2},
			Versions: map[string]string{"catamount": "0.1"}, Skipped: map[string]string{"puma": "not installed"}}
		for round := 1; round <= 2; round++ {
			for _, row := range s.Rows {
				for i, server := range row.Servers {
					sample := result.Sample{Row: row.Name, Server: server, Round: round, Values: map[string]float64{}}
					if s.Name == "hello" {
						sample.Values[scenario.Others] = 10 * float64(round)
					}
					for _, c := range s.Columns {
						sample.Values[c.Key] = float64(i+1) * float64(round)
					}
					if s.Name == "hello" && server == "hertz" && round == 2 {
						sample = result.Sample{Row: row.Name, Server: server, Round: round, Error: "7 <broken>\nand more"}
					}
					section.Samples = append(section.Samples, sample)
				}
			}
		}
		r.Merge(section, scenario.Names())
	}
	return r
}

func TestWrite(t *testing.T) {
	directory := t.TempDir()
	if err := Write(directory, results()); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text, page := read("report.md"), read("report.html")
	for _, s := range scenario.All(false) {
		if !strings.Contains(text, s.Question) || !strings.Contains(page, "<h2 id=\""+s.Name+"\">") {
			t.Errorf("%s is missing", s.Name)
		}
	}
	for _, want := range []string{
		"| catamount | 1.50 (1.00–2.00) |  |",        // no ratio with itself
		"| nethttp | 4.50 (3.00–6.00) | 0.33 (0.33–", // paired by round
		"- hello, hertz, round 2: 7 <broken>\n",      // what failed, its first line
		"puma not installed", "A <CPU> & more", "2 rounds of 1s", "Other programs had 10 % of the servers' processor (median; at most 20 %)", "2027-01-02 03:04 UTC",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("report.md has no %q", want)
		}
	}
	for _, want := range []string{"7 &lt;broken&gt;", "A &lt;CPU&gt; &amp; more", "<polyline", "<rect"} {
		if !strings.Contains(page, want) {
			t.Errorf("report.html has no %q", want)
		}
	}
	for _, reference := range []string{"src=", "href=\"http", "url("} {
		if strings.Contains(page, reference) {
			t.Errorf("report.html is not self-contained: %s", reference)
		}
	}
	plots, err := filepath.Glob(filepath.Join(directory, "plots", "*.svg"))
	if err != nil || len(plots) < len(scenario.Names()) {
		t.Fatalf("%d plots, error %v", len(plots), err)
	}
	for _, path := range plots {
		wellFormed(t, path)
		if name := filepath.Base(path); !strings.Contains(text, "(plots/"+name+")") {
			t.Errorf("report.md does not show %s", name)
		}
	}
}

func wellFormed(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
		t.Errorf("%s draws what is no number", path)
	}
	for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
}

func TestVerdicts(t *testing.T) {
	r := &result.Results{}
	section := result.Section{Scenario: "hello", Rounds: 2}
	for round, values := range []map[string]float64{
		{"catamount": 5, "fasthttp": 10, "nethttp": 9, "epoll": 4},
		{"catamount": 6, "fasthttp": 10, "nethttp": 10, "epoll": 4},
	} {
		for server, value := range values {
			section.Samples = append(section.Samples, result.Sample{Row: "hello", Server: server, Round: round + 1, Values: map[string]float64{"cpu": value}})
		}
	}
	r.Merge(section, scenario.Names())
	verdicts := verdictsOf(r)
	if len(verdicts) != 3 {
		t.Fatalf("%+v", verdicts)
	}
	for i, want := range []struct {
		value string
		met   bool
	}{{"0.55 (0.50–0.60)", true}, {"0.58 (0.56–0.60)", false}, {"1.38 (1.25–1.50)", false}} {
		if v := verdicts[i]; v.Value != want.value || v.Met != want.met {
			t.Errorf("%+v, want %s, met %v", v, want.value, want.met)
		}
	}
}

// TestTargetsHaveRows: a target whose row was renamed would vanish unnoticed.
func TestTargetsHaveRows(t *testing.T) {
	if got, want := len(verdictsOf(results())), len(targets()); got != want {
		t.Errorf("%d of %d targets were judged", got, want)
	}
}

func TestBestPeerIsNoLimit(t *testing.T) {
	section := &result.Section{Rounds: 1}
	for server, value := range map[string]float64{"epoll": 1, "gnet": 2, "catamount-blocking": 3, "hertz": 4, "nethttp": 5} {
		section.Samples = append(section.Samples, result.Sample{Row: "churn", Server: server, Round: 1, Values: map[string]float64{"cpu": value}})
	}
	best, name := ratioToBest(section, target{row: "churn", key: "cpu"})
	if !strings.HasSuffix(name, "hertz") || best.Value != 4 {
		t.Errorf("%s with %v", name, best)
	}
}

func TestScale(t *testing.T) {
	linear := scaleOf([]line{{Values: []float64{0, math.NaN(), 1000}}})
	if linear.log || linear.at(500) != 0.5 {
		t.Errorf("%+v", linear)
	}
	for _, mark := range linear.marks() {
		if math.Mod(mark, 200) != 0 {
			t.Errorf("marks of %+v: %v", linear, linear.marks())
			break
		}
	}
	log := scaleOf([]line{{Values: []float64{170, 19000}}})
	if !log.log || len(log.marks()) != 4 {
		t.Errorf("%+v with marks %v", log, log.marks())
	}
	if s := scaleOf(nil); len(s.marks()) == 0 || math.IsNaN(s.at(0)) {
		t.Errorf("nothing gives %+v", s)
	}
}

func TestFill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	const before = "# Ours\n<!-- bench:hello -->\nold\n<!-- /bench:hello -->\nkept\n<!-- bench:targets -->\n<!-- /bench:targets -->\n<!-- bench:taken -->\n<!-- /bench:taken -->\n<!-- bench:claims -->\n<!-- /bench:claims -->\nend\n"
	if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := Fill(path, results()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Ours\n<!-- bench:hello -->\n", "![hello](benchmarks/hello.svg)", "| catamount | 1.50", "<!-- /bench:hello -->\nkept\n", "as a part of that of fasthttp", "- idle, 15000 idle: PSS per connection, bytes: **2 (1–2)**", "end\n"} {
		if strings.Count(string(text), want) < 1 {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("what stood between the marks is still there")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "benchmarks", "hello.svg")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "benchmarks", "json.svg")); err == nil {
		t.Error("a plot was written that the document does not show")
	}
	if err := os.WriteFile(path, []byte("<!-- bench:hello -->\nno end\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Fill(path, results()); err == nil || !strings.Contains(err.Error(), "/bench:hello") {
		t.Errorf("a mark without an end: error %v", err)
	}
}
