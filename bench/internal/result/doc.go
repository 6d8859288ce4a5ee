// Package result is what runs leave behind: results.json, with every sample and
// where it was taken. Scenarios fill a Section each, reports read them; a later
// run of a scenario takes the place of the earlier one.
package result
