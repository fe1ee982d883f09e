const all = new Map()
for (const e of document.querySelectorAll('li i')) {
  const v = e.textContent
  if (v[0] === '@') e.className = 'g'
  all.has(v) ? all.get(v).push(e) : all.set(v, [e])
}
const colors = 6, picked = new Map(), bar = document.getElementById('picked')

function pick(v, from) {
  if (picked.has(v)) return drop(v)
  const used = new Set(picked.values())
  let c = 0
  while (used.has(c) && c < colors - 1) c++
  for (const [old, k] of picked) if (k === c) drop(old)
  picked.set(v, c)
  for (const e of all.get(v) || []) e.classList.add('p' + c)
  const b = document.createElement('b')
  b.textContent = v
  b.className = 'p' + c
  b.title = 'click to let go'
  b.onclick = () => drop(v)
  bar.append(b)
  // Bring the value's first line of every other stage to the height of this one.
  const seen = new Set([from.closest('section')])
  for (const e of all.get(v) || []) {
    const s = e.closest('section')
    if (seen.has(s) || s.classList.contains('folded')) continue
    seen.add(s)
    align(e, from)
  }
}

function align(e, from) {
  const ol = e.closest('ol')
  ol.scrollTop += e.getBoundingClientRect().top - from.getBoundingClientRect().top
}

function drop(v) {
  const c = picked.get(v)
  picked.delete(v)
  for (const e of all.get(v) || []) e.classList.remove('p' + c)
  for (const b of [...bar.children]) if (b.textContent === v) b.remove()
}

document.querySelector('main').addEventListener('click', ev => {
  const t = ev.target, head = t.closest('h2')
  if (head) return head.parentNode.classList.toggle('folded')
  if (t.closest('pre')) return
  const li = t.closest('li')
  if (!li) return
  const name = t.closest('i')
  if (name && !li.classList.contains('block')) return pick(name.textContent, name)
  if (li.classList.contains('block')) {
    const key = li.textContent.split('{')[0].replace(' resblock', '').trim()
    for (const s of document.querySelectorAll('section:not(.folded)')) {
      if (s.contains(li)) continue
      for (const o of s.querySelectorAll('li.block'))
        if (o.textContent.split('{')[0].replace(' resblock', '').trim() === key) { align(o, li); break }
    }
    return
  }
  if (li.dataset.k) {
    const open = li.querySelector('pre')
    if (open) return open.remove()
    const pre = document.createElement('pre')
    pre.textContent = kernels[li.dataset.k]
    li.append(pre)
  }
})
