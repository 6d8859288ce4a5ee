// Package scenario is the table of what the bench measures: each scenario asks
// one question, in rows, and knows how one server is measured in one row. Run
// has the servers take turns, round by round, and returns the samples; reports
// read the table for what the figures are called.
package scenario
