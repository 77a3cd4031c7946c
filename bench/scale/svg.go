package main

import (
	"fmt"
	"math"
	"os"
	"strings"
)

// The picture: one panel a quantity, all against the number of connections.
const (
	panelWidth, panelHeight = 360.0, 170.0
	marginLeft, marginTop   = 64.0, 40.0
	gap                     = 76.0
)

// xy is one dot of a curve.
type xy struct{ x, y float64 }

// panel is one curve with its title.
type panel struct {
	title string
	line  []xy // each second
	marks []xy // the points of the table
	goal  float64
}

// writeSVG draws the opening of the connections.
func writeSVG(path, caption string, panels []panel) error {
	var b strings.Builder
	columns := 2
	rows := (len(panels) + 1) / columns
	width := 2*marginLeft + float64(columns)*panelWidth + gap
	height := marginTop*2 + float64(rows)*(panelHeight+gap)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%.0f" y="24" font-size="15">%s</text>`+"\n", marginLeft, caption)
	for i, p := range panels {
		x := marginLeft + float64(i%columns)*(panelWidth+gap)
		y := marginTop*1.8 + float64(i/columns)*(panelHeight+gap)
		p.draw(&b, x, y)
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// draw draws one panel with its upper left corner at x, y.
func (p panel) draw(b *strings.Builder, x, y float64) {
	var right, top float64
	for _, d := range append(p.line, p.marks...) {
		right, top = max(right, d.x), max(top, d.y)
	}
	right, top = nice(right), nice(max(top, p.goal))
	at := func(d xy) (float64, float64) {
		return x + d.x/right*panelWidth, y + panelHeight - d.y/top*panelHeight
	}
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" font-weight="bold">%s</text>`+"\n", x, y-8, p.title)
	for i := range 5 {
		share := float64(i) / 4
		ly := y + panelHeight*(1-share)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x, ly, x+panelWidth, ly)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end" fill="#555">%s</text>`+"\n", x-6, ly+4, short(top*share))
		lx := x + panelWidth*share
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%s</text>`+"\n", lx, y+panelHeight+16, short(right*share))
	}
	if p.goal > 0 {
		_, gy := at(xy{0, p.goal})
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#b33" stroke-dasharray="5 4"/>`+"\n", x, gy, x+panelWidth, gy)
	}
	if len(p.line) > 0 {
		b.WriteString(`<polyline fill="none" stroke="#27c" stroke-width="1.5" points="`)
		for _, d := range p.line {
			px, py := at(d)
			fmt.Fprintf(b, "%.1f,%.1f ", px, py)
		}
		b.WriteString(`"/>` + "\n")
	}
	for _, d := range p.marks {
		px, py := at(d)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#27c"/>`+"\n", px, py)
	}
}

// nice is the least of 1, 1.2, 1.6, 2, 4, 6, 8 and 10 times a power of ten that is
// not less than v, so that its quarters can be read.
func nice(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 4, 6, 8} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}

// short writes a number as an axis does: 250k, 1M.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e4)/100)
	case v >= 1e3:
		return fmt.Sprintf("%gk", math.Round(v/1e2)/10)
	default:
		return fmt.Sprintf("%g", math.Round(v*100)/100)
	}
}
