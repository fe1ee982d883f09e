package simt

import "fmt"

func init() {
	families = map[string]handler{
		"add": addSub, "sub": addSub, "mul": mulMad, "mad": mulMad, "fma": fma, "div": divRem, "rem": divRem,
		"min": minMax, "max": minMax, "neg": negAbs, "abs": negAbs,
		"and": logic, "or": logic, "xor": logic, "not": logic, "shl": shift, "shr": shift,
		"popc": bitOps, "clz": bitOps, "bfind": bitOps, "brev": bitOps, "bfe": bitOps, "bfi": bitOps, "prmt": bitOps,
		"lop3": bitOps, "shf": bitOps,
		"mov": mov, "cvt": cvt, "cvta": cvta, "selp": selp, "setp": setp, "testp": testp, "copysign": copysign,
		"ex2": unary, "lg2": unary, "rcp": unary, "rsqrt": unary, "sqrt": unary, "tanh": unary, "sin": unary, "cos": unary,
		"ld": loadStore, "ldu": loadStore, "st": loadStore, "atom": atomic, "red": atomic,
		"fence": fence, "membar": fence, "bar": bar, "barrier": bar,
		"cp": cp, "ldmatrix": matrix, "stmatrix": matrix, "movmatrix": movmatrix, "mma": mma,
		"mbarrier": mbarrier, "mapa": mapa, "wgmma": wgmma,
		"shfl": shfl, "vote": vote, "activemask": vote, "elect": vote, "redux": redux,
		"bra": bra, "ret": ret, "exit": ret, "trap": ret,
		"nanosleep": nanosleep, "prefetch": hint, "prefetchu": hint, "griddepcontrol": hint, "setmaxnreg": setmaxnreg,
	}
}

func fma(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	return c.floatOp(s, in, t, 3)
}

func copysign(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	return c.floatOp(s, in, t, 2)
}

func bra(c *compiler, s *stmt, in *inst) error {
	if err := s.want(1); err != nil {
		return err
	}
	if s.args[0].kind != opSym {
		return fmt.Errorf("%s is no label", s.args[0].text)
	}
	in.uniform = s.take("uni")
	c.jumps[len(c.jumps)-1].label = s.args[0].text
	in.kind, in.count = kBra, countControl
	return nil
}

func ret(c *compiler, s *stmt, in *inst) error {
	s.take("uni")
	in.kind, in.count = kRet, countControl
	if s.op == "trap" {
		in.kind = kTrap
	}
	return s.want(0)
}

func nanosleep(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.name != "u32" {
		return fmt.Errorf("nanosleep.%s", t.name)
	}
	if err := s.want(1); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[0], t); err != nil {
		return err
	}
	in.fn = func(w *warp, _ *inst, _ uint32) { w.stop, w.polled = true, true }
	return nil
}

// hint compiles what changes only the speed.
func hint(c *compiler, s *stmt, in *inst) error {
	in.fn = func(*warp, *inst, uint32) {}
	if s.op == "griddepcontrol" {
		if s.one("wait", "launch_dependents") == "" {
			return fmt.Errorf("griddepcontrol needs .wait or .launch_dependents")
		}
		in.count = countSync
		return s.want(0)
	}
	if err := s.want(1); err != nil {
		return err
	}
	if s.take("tensormap") {
		_, _, err := c.addressing(s.args[0], generic)
		return err
	}
	if s.one("global", "local") == "" || s.one("L1", "L2", "L2::evict_last", "L2::evict_normal") == "" {
		return fmt.Errorf("%s isn't known", s.op)
	}
	_, _, err := c.addressing(s.args[0], globalSpace)
	return err
}

func setmaxnreg(c *compiler, s *stmt, in *inst) error {
	in.count = countSync
	if s.one("inc", "dec") == "" || !s.take("sync") || !s.take("aligned") || !s.take("u32") {
		return fmt.Errorf("setmaxnreg isn't setmaxnreg.inc|dec.sync.aligned.u32")
	}
	if err := s.want(1); err != nil {
		return err
	}
	if a := s.args[0]; a.kind != opInt || a.value < 24 || a.value > 256 || a.value%8 != 0 {
		return fmt.Errorf("%s is no number of registers: 24 to 256 in steps of 8", a.text)
	}
	in.fn = func(w *warp, _ *inst, mask uint32) { w.whole(mask, "setmaxnreg") }
	return nil
}
