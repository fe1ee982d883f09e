package ir

import "fmt"

// Remat says which values of the forward pass a module's gradients compute
// again instead of keeping them.
type Remat string

// The ways: none; everything inside resblocks, from what enters them (section
// 2.4 of the paper). A function without a resblock has its other regions for
// them.
const (
	NoRemat     Remat = ""
	RematBlocks Remat = "blocks"
)

// ParseRemat reads off or blocks.
func ParseRemat(s string) (Remat, error) {
	switch s {
	case "off":
		return NoRemat, nil
	case string(RematBlocks):
		return RematBlocks, nil
	}
	return NoRemat, fmt.Errorf("unknown recomputation %q; one of off, blocks", s)
}
