let kept=null
const all=n=>document.querySelectorAll('[data-b="'+n+'"]')
const mark=(n,on)=>{if(n!==null)all(n).forEach(e=>e.classList.toggle('on',on))}
const number=e=>{const t=e.target.closest('[data-b]');return t?t.dataset.b:null}
document.onmouseover=e=>mark(number(e),true)
document.onmouseout=e=>{const n=number(e);if(n!==kept)mark(n,false)}
document.onclick=e=>{
	const n=number(e)
	mark(kept,false)
	kept=n===kept?null:n
	mark(kept,true)
	if(kept!==null)document.querySelector((e.target.closest('tr')?'rect':'tr')+'[data-b="'+n+'"]').scrollIntoView({block:'center'})
}
