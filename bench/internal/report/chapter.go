package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/scenario"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// reference is the server that the others' figures are compared with.
const reference = "catamount"

// chapter is what a report says of one scenario.
type chapter struct {
	scenario.Scenario
	Section *result.Section
	Tables  []table // all figures
	Brief   []table // those that a document shows
	Plots   []plot
}

// table is one of texts.
type table struct {
	Caption string
	Header  []string
	Rows    [][]string
}

// plot is a drawing with its file's name.
type plot struct {
	Title, File, SVG string
}

// chaptersOf returns a chapter for each section whose scenario there is.
func chaptersOf(results *result.Results) []chapter {
	var chapters []chapter
	for i := range results.Sections {
		section := &results.Sections[i]
		s, ok := scenario.Find(section.Scenario, section.Quick)
		if !ok {
			continue // an earlier version's
		}
		c := chapter{Scenario: s, Section: section}
		switch s.Plot {
		case scenario.Lines:
			c.Tables, c.Brief = matrices(s, section)
			c.Plots = linePlots(s, section)
		default:
			for _, row := range section.Rows() {
				c.Tables = append(c.Tables, rowTable(s, section, row))
				if s.Plot == scenario.Percentiles {
					c.Plots = append(c.Plots, percentilePlot(s, section, row))
				} else {
					c.Plots = append(c.Plots, barPlot(s, section, row))
				}
			}
			c.Brief = c.Tables
		}
		chapters = append(chapters, c)
	}
	return chapters
}

// rowTable has a line a server and all figures of one row.
func rowTable(s scenario.Scenario, section *result.Section, row string) table {
	main := s.Columns[0]
	t := table{Caption: row, Header: []string{"server", heading(main)}}
	ours := section.Figure(row, reference, main.Key)
	compared := len(ours.Rounds.Valid()) > 0
	if compared {
		t.Header = append(t.Header, reference+" ÷ it")
	}
	for _, c := range s.Columns[1:] {
		t.Header = append(t.Header, heading(c))
	}
	for _, server := range section.Servers(row) {
		figure := section.Figure(row, server, main.Key)
		cells := []string{server, figure.Format(main.Digits)}
		if compared {
			ratio := ours.Over(figure).Format(2)
			if server == reference {
				ratio = ""
			}
			cells = append(cells, ratio)
		}
		for _, c := range s.Columns[1:] {
			cells = append(cells, stats.Number(section.Figure(row, server, c.Key).Value, c.Digits))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// matrices have a line a row and a column a server: one for each figure. Rows
// that stand in no plot, with X 0 at the end, are lines as well.
func matrices(s scenario.Scenario, section *result.Section) (all, brief []table) {
	for i, c := range s.Columns {
		t := table{Caption: heading(c), Header: []string{""}}
		servers := section.Servers("")
		t.Header = append(t.Header, servers...)
		for _, row := range section.Rows() {
			cells := []string{row}
			for _, server := range servers {
				figure := section.Figure(row, server, c.Key)
				if i == 0 {
					cells = append(cells, figure.Format(c.Digits))
				} else {
					cells = append(cells, stats.Number(figure.Value, c.Digits))
				}
			}
			t.Rows = append(t.Rows, cells)
		}
		all = append(all, t)
	}
	return all, all[:1]
}

func heading(c scenario.Column) string {
	if c.Unit == "" {
		return c.Title
	}
	return c.Title + " (" + c.Unit + ")"
}

func barPlot(s scenario.Scenario, section *result.Section, row string) plot {
	main := s.Columns[0]
	b := bars{Title: title(s, row), Unit: heading(main), Digits: main.Digits}
	for _, server := range section.Servers(row) {
		figure := section.Figure(row, server, main.Key)
		if len(figure.Rounds.Valid()) == 0 {
			continue
		}
		low, high := figure.Rounds.Range()
		b.Bars = append(b.Bars, bar{server, figure.Value, low, high})
	}
	slices.SortStableFunc(b.Bars, func(a, b bar) int { return compare(a.Value, b.Value) })
	return plot{b.Title, file(s, section, row), b.svg()}
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// linePlots draws the first figure over the rows; a row of X 0 after others is
// not of their kind.
func linePlots(s scenario.Scenario, section *result.Section) []plot {
	main := s.Columns[0]
	l := lines{Title: s.Name, Unit: heading(main), Digits: main.Digits}
	var rows []string
	for i, row := range s.Rows {
		if slices.Contains(section.Rows(), row.Name) && (i == 0 || row.X > 0) {
			rows = append(rows, row.Name)
			l.Ticks = append(l.Ticks, stats.Number(row.X, 0))
		}
	}
	l.Axis = axis(rows)
	for _, server := range section.Servers("") {
		line := line{Name: server}
		some := false
		for _, row := range rows {
			value := section.Figure(row, server, main.Key).Value
			some = some || !math.IsNaN(value)
			line.Values = append(line.Values, value)
		}
		if some {
			l.Lines = append(l.Lines, line)
		}
	}
	return []plot{{l.Title, file(s, section, ""), l.svg()}}
}

// axis is what the rows count: the words after their numbers.
func axis(rows []string) string {
	if len(rows) == 0 {
		return ""
	}
	_, word, _ := strings.Cut(rows[0], " ")
	return word
}

func percentilePlot(s scenario.Scenario, section *result.Section, row string) plot {
	keys, ticks := []string{"p50", "p90", "p99", "p999", "p9999"}, []string{"p50", "p90", "p99", "p99.9", "p99.99"}
	l := lines{Title: title(s, row), Unit: "latency (µs)", Axis: "of all requests", Ticks: ticks}
	for _, server := range section.Servers(row) {
		line := line{Name: server}
		for _, key := range keys {
			line.Values = append(line.Values, section.Figure(row, server, key).Value)
		}
		if !math.IsNaN(line.Values[0]) {
			l.Lines = append(l.Lines, line)
		}
	}
	return plot{l.Title, file(s, section, row), l.svg()}
}

func title(s scenario.Scenario, row string) string {
	if row == s.Name {
		return row
	}
	return s.Name + ": " + row
}

// file names a plot after its scenario, and its row where there are several.
func file(s scenario.Scenario, section *result.Section, row string) string {
	if row == "" || len(section.Rows()) == 1 {
		return s.Name + ".svg"
	}
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == ' ':
			return '-'
		}
		return -1
	}, row)
	return s.Name + "-" + strings.ReplaceAll(slug, "--", "-") + ".svg"
}

// taken says where and how a section's figures were taken.
func taken(section *result.Section) string {
	m := section.Machine
	text := fmt.Sprintf("%s, %s, %d MiB, %s, %s, commit %s; %s; load: %s; %s of %v.",
		m.CPU, many(m.Processors, "processor"), m.MemoryMiB, m.Kernel, m.Go, m.Commit, section.Time.Format("2006-01-02 15:04 MST"),
		section.Load, many(section.Rounds, "round"), section.Duration)
	if others := othersOf(section); len(others) > 0 && m.Processors > 1 {
		_, most := others.Range()
		text += fmt.Sprintf(" Other programs had %s %% of the servers' processor (median; at most %s %%).",
			stats.Number(others.Median(), 0), stats.Number(most, 0))
	}
	if m.Processors < 2 {
		text += " ONE PROCESSOR ONLY: servers and load took it from each other; these figures cannot be compared."
	}
	if section.Quick {
		text += " QUICK: this shows that the scenario works; its figures mean nothing."
	}
	return text
}

// versions lists the servers of a section with their versions.
func versions(section *result.Section) string {
	var list []string
	for _, server := range section.Servers("") {
		list = append(list, server+" "+section.Versions[server])
	}
	for server, reason := range section.Skipped {
		list = append(list, server+" "+reason)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// othersOf returns how much of the servers' processor others had, by sample.
func othersOf(section *result.Section) stats.Series {
	var others stats.Series
	for _, sample := range section.Samples {
		if value, ok := sample.Values[scenario.Others]; ok {
			others = append(others, value)
		}
	}
	return others
}
