package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"github.com/catamount-server/catamount/bench/internal/server"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// Sizes of plots, in pixels.
const (
	width      = 760
	leftMargin = 150
	plotWidth  = 440
	barHeight  = 22
	lineHeight = 300
)

// bars is a chart of horizontal bars.
type bars struct {
	Title, Unit string
	Digits      int
	Bars        []bar
}

// bar has a whisker from Low to High.
type bar struct {
	Name             string
	Value, Low, High float64
}

// colour tells the servers apart: ours are warm, limits grey.
func colour(name string) string {
	colours := map[string]string{
		"catamount": "#d9480f", "catamount-blocking": "#f08c00", "catamount-cluster": "#a61e4d",
		"nethttp": "#1971c2", "fasthttp": "#2f9e44", "nbio": "#0c8599", "hertz": "#7048e8",
		"nginx": "#5f3dc4", "puma": "#c2255c",
	}
	if c, ok := colours[name]; ok {
		return c
	}
	if s, ok := server.Find(name); ok && s.Kind == server.Limit {
		if name == "epoll" {
			return "#495057"
		}
		return "#adb5bd"
	}
	return "#868e96"
}

// drawing collects elements.
type drawing struct {
	strings.Builder
}

func newDrawing(height int, title, unit string) *drawing {
	d := &drawing{}
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" role="img">`,
		width, height, width, height)
	d.add(`<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`, html.EscapeString(title))
	d.text(10, 20, "start", "#222", `font-size="14" font-weight="600"`, title)
	d.text(width-10, 20, "end", "#666", "", unit)
	return d
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *drawing) text(x, y float64, anchor, fill, more, text string) {
	d.add(`<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" %s>%s</text>`, x, y, anchor, fill, more, html.EscapeString(text))
}

func (d *drawing) end() string { return d.String() + "</svg>\n" }

func (b bars) svg() string {
	highest := 0.0
	for _, bar := range b.Bars {
		highest = max(highest, bar.Value)
	}
	if highest == 0 {
		highest = 1
	}
	d := newDrawing(40+barHeight*len(b.Bars), b.Title, b.Unit)
	x := func(v float64) float64 { return leftMargin + plotWidth*min(max(v, 0)/highest, 1.1) }
	for i, bar := range b.Bars {
		y := float64(34 + barHeight*i)
		middle := y + barHeight/2 - 2
		d.text(leftMargin-8, middle+4, "end", "#222", "", bar.Name)
		d.add(`<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`, leftMargin, y, x(bar.Value)-leftMargin, barHeight-5, colour(bar.Name))
		d.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222"/>`, x(bar.Low), middle, x(bar.High), middle)
		d.text(max(x(bar.Value), x(bar.High))+6, middle+4, "start", "#222", "", stats.Number(bar.Value, b.Digits))
	}
	return d.end()
}

// lines is a chart of lines over ticks that stand at equal distances.
type lines struct {
	Title, Unit, Axis string
	Digits            int
	Ticks             []string
	Lines             []line
}

type line struct {
	Name   string
	Values []float64 // by tick; NaN: none
}

// scale maps values to heights; a logarithm when they lie far apart.
type scale struct {
	low, high float64
	log       bool
}

func scaleOf(all []line) scale {
	s := scale{low: math.Inf(1)}
	for _, l := range all {
		for _, v := range l.Values {
			if !math.IsNaN(v) {
				s.low, s.high = min(s.low, v), max(s.high, v)
			}
		}
	}
	if s.low > 0 && s.high/s.low > 20 && !math.IsInf(s.low, 1) {
		s.log = true
		s.low, s.high = math.Pow(10, math.Floor(math.Log10(s.low))), math.Pow(10, math.Ceil(math.Log10(s.high)))
		return s
	}
	s.low = min(s.low, 0)
	if s.high <= s.low {
		s.high = s.low + 1
	}
	return s
}

// at returns where v stands between 0 and 1.
func (s scale) at(v float64) float64 {
	if s.log {
		return math.Log(v/s.low) / math.Log(s.high/s.low)
	}
	return (v - s.low) / (s.high - s.low)
}

// marks are the values of grid lines.
func (s scale) marks() []float64 {
	var marks []float64
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			marks = append(marks, v)
		}
		return marks
	}
	step := niceStep(s.high - s.low)
	for v := math.Ceil(s.low/step) * step; v <= s.high*1.0001; v += step {
		marks = append(marks, v)
	}
	return marks
}

// niceStep is 1, 2 or 5 times a power of ten, such that four to eight make up
// the span.
func niceStep(span float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, factor := range []float64{5, 2} {
		if factor*power <= span/4 {
			return factor * power
		}
	}
	return power
}

func (l lines) svg() string {
	d := newDrawing(lineHeight+80, l.Title, l.Unit)
	s := scaleOf(l.Lines)
	const top, left = 40, 90
	x := func(i int) float64 { return left + plotWidth*(float64(i)+0.5)/float64(len(l.Ticks)) }
	y := func(v float64) float64 { return top + lineHeight*(1-s.at(v)) }
	digits := 0
	if s.high-s.low < 10 {
		digits = 1
	}
	for _, mark := range s.marks() {
		d.add(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#e5e5e5"/>`, left, y(mark), left+plotWidth, y(mark))
		d.text(left-8, y(mark)+4, "end", "#666", "", stats.Number(mark, digits))
	}
	for i, tick := range l.Ticks {
		d.text(x(i), top+lineHeight+18, "middle", "#666", "", tick)
	}
	d.text(left+plotWidth/2, top+lineHeight+34, "middle", "#666", "", l.Axis)
	for _, one := range l.Lines {
		d.polyline(one, x, y)
	}
	l.legend(d, y)
	return d.end()
}

func (d *drawing) polyline(l line, x func(int) float64, y func(float64) float64) {
	var points []string
	for i, v := range l.Values {
		if !math.IsNaN(v) {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(i), y(v)))
			d.add(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(i), y(v), colour(l.Name))
		}
	}
	d.add(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(points, " "), colour(l.Name))
}

// legend names the lines beside their ends, moved apart where they would cover
// each other.
func (l lines) legend(d *drawing, y func(float64) float64) {
	type label struct {
		name string
		y    float64
	}
	var labels []label
	for _, one := range l.Lines {
		for i := len(one.Values) - 1; i >= 0; i-- {
			if v := one.Values[i]; !math.IsNaN(v) {
				labels = append(labels, label{one.Name, y(v)})
				break
			}
		}
	}
	slices.SortStableFunc(labels, func(a, b label) int { return compare(a.y, b.y) })
	const step = 15
	lowest := 40.0 + lineHeight // the last label stands there at most
	for i := range labels {
		labels[i].y = min(labels[i].y, lowest-step*float64(len(labels)-1-i))
		if i > 0 {
			labels[i].y = max(labels[i].y, labels[i-1].y+step)
		}
	}
	for _, one := range labels {
		d.text(90+plotWidth+12, one.y+4, "start", colour(one.name), `font-weight="600"`, one.name)
	}
}
