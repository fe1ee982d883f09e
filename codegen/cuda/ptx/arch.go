package ptx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Arch is a target of ptxas.
type Arch struct {
	Name string // such as sm_90a
	// Version is the oldest version of PTX to declare, such as 8.0; empty for
	// the oldest that knows the target. Instructions that need a newer one get it.
	Version string
}

// version is a version of PTX, times ten.
type version int

// arch is an Arch, understood.
type arch struct {
	sm      int
	a       bool // with the features of that chip alone
	version version
}

var archName = regexp.MustCompile(`^sm_(\d+)(a?)$`)

func parse(a Arch) (arch, error) {
	m := archName.FindStringSubmatch(a.Name)
	if m == nil {
		return arch{}, fmt.Errorf("internal: target %q is none of sm_70 and later", a.Name)
	}
	out := arch{a: m[2] != ""}
	out.sm, _ = strconv.Atoi(m[1])
	switch {
	case out.sm >= 90 && out.a:
		out.version = 80
	case out.sm >= 90:
		out.version = 78
	case out.sm >= 89:
		out.version = 78
	case out.sm >= 87:
		out.version = 74
	case out.sm >= 86:
		out.version = 71
	case out.sm >= 80:
		out.version = 70
	case out.sm >= 75:
		out.version = 63
	case out.sm >= 70:
		out.version = 60
	default:
		return arch{}, fmt.Errorf("internal: target %s is older than sm_70", a.Name)
	}
	if a.Version != "" {
		major, minor, ok := strings.Cut(a.Version, ".")
		x, err := strconv.Atoi(major)
		y, err2 := strconv.Atoi(minor)
		if !ok || err != nil || err2 != nil || y < 0 || y > 9 {
			return arch{}, fmt.Errorf("internal: %q is no version of PTX", a.Version)
		}
		out.version = max(out.version, version(10*x+y))
	}
	return out, nil
}

// required is what operations of asm.go need: the first whose name starts so
// counts.
var required = []struct {
	prefix  string
	sm      int
	a       bool
	version version
}{
	{"gpu.bar.", 70, false, 60},
	{"gpu.syncwarp", 70, false, 60},
	{"gpu.ballot", 70, false, 60},
	{"gpu.vote.", 70, false, 60},
	{"gpu.div.full", 70, false, 60},
	{"gpu.mul.wide", 70, false, 60},
	{"gpu.popc", 70, false, 60},
	{"gpu.cvt.f16x2", 70, false, 60}, // two conversions below sm_80
	{"gpu.cvt.bf16x2", 80, false, 70},
	{"gpu.tanh", 75, false, 70},
	{"gpu.prefetch", 70, false, 60},
	{"gpu.mma.", 80, false, 70},
	{"gpu.mma884.", 70, false, 64}, // much slower on later ones
	{"gpu.ldmatrix.", 75, false, 65},
	{"gpu.stmatrix.", 90, false, 78},
	{"gpu.cp.async.", 80, false, 70},
	{"gpu.mbarrier.", 90, false, 80},
	{"gpu.tma.", 90, false, 80},
	{"gpu.bulk.", 90, false, 80},
	{"gpu.fence.", 90, false, 80},
	{"gpu.wgmma.", 90, true, 80},
	{"gpu.setmaxnreg.", 90, true, 80},
	{"gpu.cluster.", 90, false, 80},
}

// require checks that the target has an operation.
func (s *selection) require(name string) {
	for _, r := range required {
		if !strings.HasPrefix(name, r.prefix) {
			continue
		}
		if s.arch.sm < r.sm || r.a && !(s.arch.a && s.arch.sm == r.sm) {
			suffix := ""
			if r.a {
				suffix = "a"
			}
			s.fail("%s needs sm_%d%s", name, r.sm, suffix)
		}
		s.needs = max(s.needs, r.version)
		return
	}
	s.fail("%s: nothing is known about the targets that have it", name)
}
