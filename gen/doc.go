// Package gen is where generated packages go: gen/<system> is written by
// gouachec (see the go:generate lines in models/systems) and is not kept in
// the repository. Do not edit it.
package gen
