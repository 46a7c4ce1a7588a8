// What the graph page does. The data are in the script element with the id "data", see graph_page.py; d3-force
// arranges the nodes and Cytoscape.js draws them.
// Text of documents becomes text nodes only, and never markup.
'use strict';

(() => {
  const DRAWN = 250; // relations drawn at first: more of them are hard to read, and slow to arrange
  const LISTED = 200; // rows that each step adds to the list
  const NODE_HEIGHT = 28; // px
  const MAX_NAME = 34; // characters of a name in a node

  const data = JSON.parse(document.getElementById('data').textContent);
  const { entities, relations } = data;
  const byId = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString('en');
  const counted = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
  const fold = (text) => text.normalize('NFKD').replace(/\p{M}/gu, '').replaceAll('_', ' ').toLowerCase();

  const haystacks = relations.map((relation) => {
    const ends = [entities[relation.head], entities[relation.tail]];
    return fold([relation.label, ...ends.flatMap((entity) => [entity.name, ...entity.names])].join('\n'));
  });
  const state = {
    words: [], // of the search, folded
    score: 0,
    labels: new Set(relations.map((relation) => relation.label)),
    entity: null, // the entity whose relations alone are listed
    selected: null, // the relation whose sentences are shown
    active: 0, // the row that the tab key reaches
    nDrawn: DRAWN,
    nListed: LISTED,
    matching: [], // relations that the filters leave, the best supported first
    listed: [], // those of them that are of the entity
  };

  /** Make an element with text, attributes and children. */
  function element(tag, { text, children = [], ...attributes } = {}) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    made.append(...children);
    return made;
  }

  // --- the graph -----------------------------------------------------------------------------------------------

  const measure = document.createElement('canvas').getContext('2d');
  const places = new Map(); // where nodes stand or stood, so that a node that comes back is where it was
  const cy = cytoscape({
    container: byId('graph'), minZoom: 0.05, maxZoom: 3, boxSelectionEnabled: false, autounselectify: true,
  });

  function graphStyle() {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(`--${name}`).trim();
    const font = getComputedStyle(document.body).fontFamily;
    return [
      { selector: 'node', style: {
        shape: 'round-rectangle', width: 'data(width)', height: NODE_HEIGHT, 'background-color': 'data(color)',
        label: 'data(name)', color: '#111', 'font-size': 13, 'font-weight': 600, 'font-family': font,
        'text-valign': 'center', 'text-halign': 'center', 'overlay-opacity': 0,
      } },
      { selector: 'edge', style: {
        'curve-style': 'bezier', 'control-point-step-size': 44, width: 'data(width)', opacity: 'data(opacity)',
        'line-color': color('edge'), 'target-arrow-color': color('edge'), 'target-arrow-shape': 'triangle',
        label: 'data(label)', color: color('ink'), 'font-size': 11, 'font-family': font, 'text-rotation': 'autorotate',
        'text-background-color': color('paper'), 'text-background-opacity': 0.88, 'text-background-padding': 2,
        'min-zoomed-font-size': 7, 'overlay-opacity': 0, 'overlay-padding': 6,
      } },
      { selector: '.faded', style: { opacity: 0.14 } },
      { selector: 'edge.near, edge.selected', style: {
        opacity: 1, 'line-color': color('accent'), 'target-arrow-color': color('accent'), 'z-index': 5,
        'min-zoomed-font-size': 0,
      } },
      { selector: 'edge.selected', style: { 'font-weight': 700, width: 4, 'z-index': 9 } },
      { selector: 'node.ends', style: { 'border-width': 3, 'border-color': color('accent') } },
    ];
  }

  function node(place) {
    const entity = entities[place];
    const chars = [...entity.name];
    const name = chars.length > MAX_NAME ? `${chars.slice(0, MAX_NAME - 1).join('')}…` : entity.name;
    measure.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
    const width = Math.ceil(measure.measureText(name).width) + 20;
    return { group: 'nodes', data: { id: `n${place}`, place, name, width, color: entity.color } };
  }

  function edge(place) {
    const relation = relations[place];
    return { group: 'edges', data: {
      id: `e${place}`, place, source: `n${relation.head}`, target: `n${relation.tail}`, label: relation.label,
      width: Math.min(1.5 + Math.log2(relation.n), 5), opacity: 0.45 + 0.55 * relation.score,
    } };
  }

  /** Say where a node goes before the arrangement: near a neighbour, or on a spiral. */
  function firstPlace(added, index) {
    const known = added.neighborhood('node').filter((other) => places.has(other.id()));
    const angle = index * 2.4; // the golden angle spreads any number of points evenly
    const { x, y } = known.length ? places.get(known[0].id()) : { x: 0, y: 0 };
    const radius = known.length ? 90 : 60 * Math.sqrt(index + 0.5);
    return { x: x + radius * Math.cos(angle), y: y + radius * Math.sin(angle) };
  }

  /** Move the nodes so that few of them overlap and those with relations stand near each other. */
  function arrange() {
    const nodes = cy.nodes().map((one) => ({ id: one.id(), width: one.data('width'), ...one.position() }));
    const links = cy.edges().map((one) => ({ source: one.source().id(), target: one.target().id(), name: one.data('label') }));
    const isWide = cy.width() > cy.height();
    const ticks = nodes.length > 400 ? 100 : 200;
    const charge = d3.forceManyBody().strength(-1400).distanceMax(1200);
    const [across, down] = [d3.forceX(0), d3.forceY(0)];
    const gravity = (strength) => {
      across.strength(isWide ? strength : 2 * strength);
      down.strength(isWide ? 2 * strength : strength);
    };
    gravity(0.04);
    const simulation = d3.forceSimulation(nodes)
      .force('link', d3.forceLink(links).id((one) => one.id)
        .distance(({ source, target, name }) => (source.width + target.width) / 2 + name.length * 6 + 30))
      .force('charge', charge).force('x', across).force('y', down)
      .stop()
      .tick(ticks);
    // Nodes that may not overlap cannot pass each other, so that comes last, as does bringing together what has no
    // relation to each other.
    charge.distanceMax(400);
    gravity(0.06);
    simulation.force('collide', d3.forceCollide((one) => one.width / 2 + 4)).alpha(0.4).tick(ticks);
    cy.batch(() => {
      for (const { id, x, y } of nodes) {
        places.set(id, { x, y });
        cy.getElementById(id).position({ x, y });
      }
    });
  }

  /** Show all of the graph, but no node larger than it is in the text around it. */
  function fit() {
    cy.fit(undefined, 50);
    if (cy.zoom() > 1.15) {
      cy.zoom(1.15);
      cy.center();
    }
  }

  /** Move the graph where the sentences of the selected relation would cover its edge. */
  function reveal() {
    const ends = cy.getElementById(`e${state.selected}`).connectedNodes();
    const top = byId('graph').getBoundingClientRect().top;
    const height = Math.min(cy.height(), byId('detail').getBoundingClientRect().top - top);
    const box = ends.renderedBoundingBox();
    if (height < 80 || (box.x1 >= 0 && box.y1 >= 0 && box.x2 <= cy.width() && box.y2 <= height)) return;
    cy.panBy({ x: (cy.width() - box.x1 - box.x2) / 2, y: (height - box.y1 - box.y2) / 2 });
  }

  /** Put these relations into the graph and take the others out; return whether anything changed. */
  function draw(shown) {
    const wanted = new Set(shown.flatMap((place) => {
      const { head, tail } = relations[place];
      return [`e${place}`, `n${head}`, `n${tail}`];
    }));
    const gone = cy.elements().filter((drawn) => !wanted.has(drawn.id()));
    const fresh = shown.filter((place) => cy.getElementById(`e${place}`).empty());
    if (gone.empty() && !fresh.length) return false;
    let isNew = false;
    cy.batch(() => {
      gone.remove();
      const ends = new Set(fresh.flatMap((place) => [relations[place].head, relations[place].tail]));
      const nodes = [...ends].filter((place) => cy.getElementById(`n${place}`).empty()).map(node);
      const added = cy.add(nodes);
      cy.add(fresh.map(edge));
      added.forEach((one, index) => {
        isNew ||= !places.has(one.id());
        one.position(places.get(one.id()) ?? firstPlace(one, index));
      });
    });
    if (isNew) arrange();
    return true;
  }

  /** Bring out the selected relation and the entity whose relations are listed. */
  function highlight() {
    cy.batch(() => {
      cy.elements().removeClass('faded selected near ends');
      if (state.entity !== null) {
        const focus = cy.getElementById(`n${state.entity}`);
        const around = focus.closedNeighborhood().union(focus.connectedEdges());
        cy.elements().difference(around).addClass('faded');
        focus.addClass('ends');
      }
      if (state.selected !== null) {
        const chosen = cy.getElementById(`e${state.selected}`);
        chosen.removeClass('faded').addClass('selected');
        chosen.connectedNodes().removeClass('faded').addClass('ends');
      }
    });
  }

  // --- the list ------------------------------------------------------------------------------------------------

  function row(place, index) {
    const relation = relations[place];
    const [head, tail] = [entities[relation.head].name, entities[relation.tail].name];
    const bar = element('i');
    bar.style.width = `${Math.round(relation.score * 100)}%`;
    const found = relation.n > 1 ? ` · ${number(relation.n)}×` : '';
    return element('li', {
      role: 'option', id: `r${place}`, tabindex: index === state.active ? 0 : -1,
      'aria-selected': place === state.selected,
      children: [
        element('span', { children: [
          element('bdi', { text: head }), ' ', element('span', { text: relation.label, class: 'relation' }), ' ',
          element('bdi', { text: tail }),
        ] }),
        ' ',
        element('span', { class: 'figures note', children: [
          element('span', { class: 'hidden', text: 'score ' }), `${relation.score.toFixed(2)}${found}`, element('span', { class: 'bar', children: [bar] }),
        ] }),
      ],
    });
  }

  function list() {
    state.nListed = Math.max(state.nListed, state.active + 1);
    byId('list').replaceChildren(...state.listed.slice(0, state.nListed).map(row));
    const left = state.listed.length - state.nListed;
    byId('more').hidden = left <= 0;
    byId('more').textContent = `List ${number(Math.min(left, LISTED))} more of ${number(left)}`;
  }

  /** Make a row the one that the tab key reaches, and move to it. */
  function activate(index, { focus }) {
    if (!state.listed.length) return;
    const before = byId('list').children[state.active];
    state.active = Math.max(0, Math.min(index, state.listed.length - 1));
    if (state.active >= byId('list').children.length) {
      state.nListed += LISTED;
      list();
    }
    if (before) before.tabIndex = -1;
    const now = byId('list').children[state.active];
    now.tabIndex = 0;
    if (focus) now.focus();
    now.scrollIntoView({ block: 'nearest' });
    cy.edges().removeClass('near');
    cy.getElementById(`e${state.listed[state.active]}`).addClass('near');
  }

  // --- what is read --------------------------------------------------------------------------------------------

  function aboutEntity(entity) {
    const also = entity.names.length ? `also ${entity.names.join(', ')}` : '';
    const said = [entity.type, entity.kbId, also].filter(Boolean).join('; ');
    return said && element('p', { class: 'note names', children: [element('bdi', { text: entity.name }), `: ${said}`] });
  }

  function quote(evidence) {
    const parts = evidence.segments.map(([text, role]) => (role ? element('mark', { text, class: role }) : text));
    return element('li', { children: [
      element('blockquote', { dir: 'auto', children: parts }),
      element('p', { class: 'note', children: [
        'Document ', element('bdi', { text: evidence.doc }), ` · score ${evidence.score.toFixed(2)}`,
      ] }),
    ] });
  }

  function read(place) {
    const relation = relations[place];
    const [head, tail] = [entities[relation.head], entities[relation.tail]];
    byId('detail-title').replaceChildren(
      element('mark', { class: 'head', text: head.name }), ' ',
      element('span', { class: 'relation', text: relation.label }), ' ',
      element('mark', { class: 'tail', text: tail.name }),
    );
    const shown = relation.evidence.length;
    const where = `found in ${counted(relation.n, 'place')} of ${counted(relation.nDocs, 'document')}`;
    const best = shown < relation.n ? `, of which the ${number(shown)} with the best scores are shown` : '';
    byId('detail-body').replaceChildren(
      element('p', { class: 'note', text: `Score ${relation.score.toFixed(2)}, ${where}${best}.` }),
      ...[aboutEntity(head), aboutEntity(tail)].filter(Boolean),
      element('ol', { children: relation.evidence.map(quote) }),
    );
    byId('detail').hidden = false;
    byId('detail').scrollTop = 0;
  }

  /** Show the sentences of a relation, or of none. */
  function select(place, { focus = false } = {}) {
    state.selected = place;
    for (const one of byId('list').children) one.setAttribute('aria-selected', one.id === `r${place}`);
    if (place === null) {
      byId('detail').hidden = true;
    } else {
      read(place);
      activate(state.listed.indexOf(place), { focus });
      if (draw(drawnRelations())) fit();
    }
    highlight();
    if (place !== null) reveal();
  }

  function close() {
    const hadFocus = byId('detail').contains(document.activeElement);
    select(null);
    if (hadFocus) activate(state.active, { focus: true });
  }

  // --- filters -------------------------------------------------------------------------------------------------

  const isOf = (place, entity) => relations[place].head === entity || relations[place].tail === entity;

  function drawnRelations() {
    const { matching, nDrawn, entity, selected } = state;
    const shown = new Set(matching.slice(0, nDrawn));
    if (entity !== null) matching.filter((place) => isOf(place, entity)).forEach((place) => shown.add(place));
    if (selected !== null) shown.add(selected);
    return [...shown];
  }

  /** Bring everything in line with the filters. */
  function update() {
    const { words, score, labels } = state;
    state.matching = [...relations.keys()].filter((place) => {
      const relation = relations[place];
      return relation.score >= score && labels.has(relation.label) && words.every((w) => haystacks[place].includes(w));
    });
    const isListed = (place) => state.entity === null || isOf(place, state.entity);
    state.listed = state.matching.filter(isListed);
    if (state.entity !== null && !state.listed.length) return only(null); // the filters left nothing of it
    if (!state.listed.includes(state.selected)) select(null);
    state.active = Math.max(state.listed.indexOf(state.selected), 0);
    state.nListed = LISTED;
    list();
    const shown = drawnRelations();
    if (draw(shown)) fit();
    highlight();
    describe(shown);
  }

  function describe(shown) {
    const [n, total] = [state.listed.length, relations.length];
    byId('matching').textContent = n === total ? counted(n, 'relation') : `${number(n)} of ${counted(total, 'relation')}`;
    byId('label-count').textContent = `${state.labels.size} of ${byId('labels').querySelectorAll('input').length}`;
    const left = state.matching.length - shown.length;
    if (left > 0) {
      const more = element('button', { type: 'button', text: 'Draw more' });
      more.addEventListener('click', () => { state.nDrawn *= 2; update(); });
      const text = `${number(shown.length)} of ${number(state.matching.length)} are drawn, found in most places first `;
      byId('drawn').replaceChildren(text, more);
    } else {
      byId('drawn').textContent = shown.length ? '' : total ? 'No relation matches.' : 'There are no relations.';
    }
    const [nodes, edges] = [cy.nodes(), cy.edges()];
    byId('graph').setAttribute('aria-label', `Graph of ${counted(nodes.length, 'entity', 'entities')} and `
      + `${counted(edges.length, 'relation')}; the list has the same content`);
    const types = new Map(nodes.map((one) => entities[one.data('place')]).filter((entity) => entity.type)
      .map((entity) => [entity.type, entity.color]));
    byId('types').replaceChildren(...[...types].sort().map(([text, color]) => {
      const type = element('li', { text });
      type.style.background = color;
      return type;
    }));
  }

  /** List the relations of one entity only, or all again. */
  function only(entity) {
    state.entity = entity;
    byId('only').hidden = entity === null;
    byId('only-name').textContent = entity === null ? '' : entities[entity].name;
    update();
  }

  function labelBoxes() {
    const counts = new Map();
    for (const { label } of relations) counts.set(label, (counts.get(label) ?? 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
    byId('labels').append(...sorted.map(([label, n]) => {
      const box = element('input', { type: 'checkbox' });
      box.checked = true;
      box.value = label;
      return element('label', { children: [
        box, element('bdi', { text: label }), element('span', { class: 'note', text: number(n) }),
      ] });
    }));
    byId('label-box').open = sorted.length <= 8 && matchMedia('(min-width: 48rem)').matches;
  }

  function readLabels() {
    const boxes = [...byId('labels').querySelectorAll('input')];
    state.labels = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    update();
  }

  function checkAll(checked) {
    for (const box of byId('labels').querySelectorAll('input')) box.checked = checked;
    readLabels();
  }

  function summarise() {
    const nDocs = Number(byId('summary').dataset.docs);
    const said = [`${counted(entities.length, 'entity', 'entities')} and ${counted(relations.length, 'relation')} `
      + `from ${counted(nDocs, 'document')}`];
    if (data.nRelations > relations.length) {
      said.push(`those found in most places, of ${number(data.nRelations)} relations in all`);
    }
    if (data.nLoops) said.push(`${counted(data.nLoops, 'relation')} of an entity with itself left out`);
    byId('summary').textContent = said.join(' · ');
  }

  // --- events --------------------------------------------------------------------------------------------------

  const keys = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  byId('list').addEventListener('keydown', (event) => {
    if (event.key in keys) {
      event.preventDefault();
      activate(state.active + keys[event.key], { focus: true });
      if (state.selected !== null) select(state.listed[state.active], { focus: true });
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      if (state.listed.length) select(state.listed[state.active], { focus: true });
    }
  });
  byId('list').addEventListener('click', (event) => {
    const chosen = event.target.closest('li');
    if (chosen) select(Number(chosen.id.slice(1)), { focus: true });
  });
  byId('more').addEventListener('click', () => {
    const first = byId('list').children.length;
    state.nListed += LISTED;
    list();
    activate(first, { focus: true });
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    if (state.selected !== null) close();
    else if (state.entity !== null) only(null);
  });
  byId('close').addEventListener('click', close);
  byId('only-clear').addEventListener('click', () => { only(null); byId('search').focus(); });
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
  byId('search').addEventListener('input', (event) => {
    state.words = fold(event.target.value).split(/\s+/).filter(Boolean);
    update();
  });
  byId('score').addEventListener('input', (event) => {
    state.score = Number(event.target.value);
    byId('score-value').textContent = state.score.toFixed(2);
    update();
  });
  byId('labels').addEventListener('change', readLabels);
  byId('all').addEventListener('click', () => checkAll(true));
  byId('none').addEventListener('click', () => checkAll(false));

  const zoomBy = (factor) => cy.zoom({
    level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 },
  });
  byId('zoom-in').addEventListener('click', () => zoomBy(1.3));
  byId('zoom-out').addEventListener('click', () => zoomBy(1 / 1.3));
  byId('fit').addEventListener('click', fit);
  byId('tidy').addEventListener('click', () => { arrange(); fit(); });

  cy.on('tap', 'edge', (event) => select(event.target.data('place')));
  cy.on('tap', 'node', (event) => only(event.target.data('place')));
  cy.on('tap', (event) => {
    if (event.target !== cy) return;
    if (state.selected !== null) close();
    else if (state.entity !== null) only(null);
  });
  cy.on('dragfree', 'node', (event) => places.set(event.target.id(), { ...event.target.position() }));
  cy.on('mouseover', 'node, edge', (event) => {
    byId('graph').style.cursor = 'pointer';
    event.target.filter('edge').addClass('near');
  });
  cy.on('mouseout', 'node, edge', (event) => {
    byId('graph').style.cursor = '';
    event.target.removeClass('near');
  });
  const dark = matchMedia('(prefers-color-scheme: dark)');
  dark.addEventListener('change', () => cy.style(graphStyle()));
  addEventListener('resize', () => { cy.resize(); });

  cy.style(graphStyle());
  summarise();
  labelBoxes();
  update();
})();
