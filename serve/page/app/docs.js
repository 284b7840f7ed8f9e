// The OpenAPI document -> a page that a person reads.

const text = (tag, value, kind) => { const e = document.createElement(tag); e.textContent = value; if (kind) e.className = kind; return e };
const table = rows => { const t = document.createElement('table'); for (const cells of rows) { const r = t.insertRow(); for (const c of cells) r.insertCell().textContent = c } return t };
fetch('openapi.json').then(r => r.json()).then(spec => {
  document.getElementById('about').textContent = spec.info.description;
  const base = location.origin;
  for (const [path, item] of Object.entries(spec.paths)) for (const verb of ['get', 'post', 'put', 'delete']) {
    const op = item[verb]; if (!op) continue;
    const box = document.createElement('details'), head = document.createElement('summary'), inside = text('div', '', 'inside');
    head.append(text('span', verb.toUpperCase(), 'verb'), text('code', path), text('span', op.summary, 'soft'));
    if (op.description) inside.append(text('p', op.description));
    for (const sample of op['x-codeSamples'] || []) inside.append(text('pre', sample.source.replaceAll('$URL', base)));
    const parameters = [...(item.parameters || []), ...(op.parameters || [])];
    if (parameters.length) inside.append(text('h4', 'Parameters'), table(parameters.map(p => [p.name, p.in, p.description + ' ' + JSON.stringify(p.schema || p.content['application/json'].schema)])));
    if (op.requestBody) inside.append(text('h4', 'Body'), text('p', Object.keys(op.requestBody.content).join(', '), 'soft'));
    inside.append(text('h4', 'Answers'), table(Object.entries(op.responses).map(([s, a]) => [s, a.description])));
    box.append(head, inside); document.getElementById('routes').append(box);
  }
  const schemas = document.createElement('details'); schemas.append(text('summary', 'Schemas'), text('pre', JSON.stringify(spec.components.schemas, null, 2)));
  document.getElementById('routes').append(schemas);
});
