// Package report makes what is read of results: report.md, report.html with its
// plots inside, the plots as SVG files, and the parts between marks in
// documents. It measures nothing and takes what the figures are called from
// the table of scenarios; main calls Write and Fill.
package report
