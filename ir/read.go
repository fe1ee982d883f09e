package ir

// Reserve makes value IDs below n count as taken: values made later get IDs,
// and with them names, from n on. For readers of text, which number values as
// their names say.
func (f *Func) Reserve(n int) { f.nextID = max(f.nextID, n) }

// AttrKey is the text name of an op's field, as Attrs gives it: TransB is
// trans_b.
func AttrKey(field string) string { return snake(field) }
