//! Drawn portraits, as synthetic photographs: the faces of the world that the pipeline was trained on.
//!
//! A port of the renderer in `tasks/models/world/faces.py`, shape by shape in its order. Who it is (twelve traits) and how it
//! is shown (hair, expression, light …) are apart: the same person can be drawn in many ways.

use nineteen_pictures::photo::Picture;
use nineteen_sdk::Rng;
use serde::Deserialize;

/// Pixels of a side.
pub const SIDE: u32 = 64;

/// Who it is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    width: f64,
    jaw: f64,
    eye_gap: f64,
    eye_size: f64,
    eye_height: f64,
    nose_length: f64,
    nose_width: f64,
    mouth_width: f64,
    brow: f64,
    skin: f64,
    iris: usize,
    mark: u8,
}

impl Person {
    /// Somebody.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut within = |low: f64, high: f64| low + (high - low) * rng.unit();
        Self {
            width: within(0.80, 1.12),
            jaw: within(0.70, 1.05),
            eye_gap: within(0.78, 1.25),
            eye_size: within(0.75, 1.35),
            eye_height: within(-2.2, 2.2),
            nose_length: within(0.7, 1.4),
            nose_width: within(0.7, 1.5),
            mouth_width: within(0.7, 1.35),
            brow: within(0.5, 2.2),
            skin: within(0.0, 1.0),
            iris: usize::try_from(rng.below(4)).unwrap_or(0),
            mark: u8::try_from(rng.below(6)).unwrap_or(0),
        }
    }
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manner {
    hair: Hair,
    hair_colour: HairColour,
    expression: Expression,
    light: Light,
    style: Style,
    ground: Ground,
    x: f64,
    y: f64,
    k: f64,
    turn: f64,
}

macro_rules! words {
    ($(#[$doc:meta] $name:ident: $($word:ident),+;)+) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum $name { $($word),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$word),+];
        }
    )+};
}

words! {
    /// Its cut.
    Hair: Short, Long, Curly, Bald;
    /// Its colour.
    HairColour: Black, Brown, Blond, Red, Grey, Blue;
    /// Of the face.
    Expression: Neutral, Smiling, Sad, Surprised;
    /// Where it comes from.
    Light: Even, Left, Right;
    /// Of the whole picture.
    Style: Photo, Cartoon, Sketch;
    /// Behind the head.
    Ground: Grey, Pink, Sky, Sand, Mint, Navy;
}

impl HairColour {
    const fn rgb(self) -> Rgb {
        match self {
            Self::Black => [30.0, 26.0, 28.0],
            Self::Brown => [100.0, 62.0, 36.0],
            Self::Blond => [228.0, 190.0, 110.0],
            Self::Red => [180.0, 70.0, 34.0],
            Self::Grey => [165.0, 165.0, 170.0],
            Self::Blue => [60.0, 90.0, 190.0],
        }
    }
}

impl Ground {
    const fn rgb(self) -> Rgb {
        match self {
            Self::Grey => [128.0, 128.0, 128.0],
            Self::Pink => [250.0, 190.0, 205.0],
            Self::Sky => [150.0, 205.0, 245.0],
            Self::Sand => [225.0, 205.0, 160.0],
            Self::Mint => [170.0, 225.0, 190.0],
            Self::Navy => [30.0, 40.0, 90.0],
        }
    }
}

impl Manner {
    /// As photographs are that people send.
    pub fn photograph(rng: &mut Rng) -> Self {
        fn one<T: Copy>(rng: &mut Rng, of: &[T], otherwise: T) -> T {
            rng.pick(of).copied().unwrap_or(otherwise)
        }
        let mut within = |low: f64, high: f64| low + (high - low) * rng.unit();
        let (x, y) = (32.0 + within(-2.0, 2.0), 33.0 + within(-2.0, 2.0));
        let (k, turn) = (within(0.92, 1.05), within(-0.07, 0.07));
        Self {
            hair: one(rng, Hair::ALL, Hair::Short),
            hair_colour: one(rng, HairColour::ALL, HairColour::Brown),
            expression: one(rng, Expression::ALL, Expression::Neutral),
            light: one(rng, Light::ALL, Light::Even),
            // A drawing in place of a photograph now and then.
            style: if rng.chance(0.9) { Style::Photo } else { one(rng, Style::ALL, Style::Photo) },
            ground: one(rng, Ground::ALL, Ground::Grey),
            x,
            y,
            k,
            turn,
        }
    }
}

type Rgb = [f64; 3];
type Point = [f64; 2];

const IRIS: [Rgb; 4] = [[90.0, 60.0, 30.0], [60.0, 110.0, 190.0], [60.0, 130.0, 70.0], [40.0, 40.0, 44.0]];
const LIGHT_SKIN: Rgb = [250.0, 215.0, 190.0];
const DARK_SKIN: Rgb = [110.0, 70.0, 48.0];
const BLACK: Rgb = [20.0; 3];

/// A shape by its signed distance, negative inside, in the head's own coordinates.
enum Shape {
    Ellipse(Point, Point),
    /// The part of an ellipse above a height (which grows downwards).
    EllipseAbove(Point, Point, f64),
    /// The part below it.
    EllipseBelow(Point, Point, f64),
    Disc(Point, f64),
    Ring(Point, f64, f64),
    /// A line of this half width through points.
    Line(Vec<Point>, f64),
    /// The head, of this width and jaw.
    Head(f64, f64),
}

fn length(x: f64, y: f64) -> f64 {
    (x * x + y * y).sqrt()
}

fn ellipse([px, py]: Point, [cx, cy]: Point, [rx, ry]: Point) -> f64 {
    let (qx, qy) = ((px - cx) / rx, (py - cy) / ry);
    let q = length(qx, qy);
    q * (q - 1.0) / length(qx / rx, qy / ry).max(1e-9)
}

fn segment([px, py]: Point, [ax, ay]: Point, [bx, by]: Point) -> f64 {
    let (ex, ey) = (bx - ax, by - ay);
    let t = (((px - ax) * ex + (py - ay) * ey) / (ex * ex + ey * ey).max(1e-9)).clamp(0.0, 1.0);
    length(px - ax - ex * t, py - ay - ey * t)
}

impl Shape {
    fn distance(&self, p: Point) -> f64 {
        let [px, py] = p;
        match self {
            Self::Ellipse(c, r) => ellipse(p, *c, *r),
            Self::EllipseAbove(c, r, limit) => ellipse(p, *c, *r).max(py - limit),
            Self::EllipseBelow(c, r, limit) => ellipse(p, *c, *r).max(limit - py),
            Self::Disc([cx, cy], r) => length(px - cx, py - cy) - r,
            Self::Ring([cx, cy], r, half) => (length(px - cx, py - cy) - r).abs() - half,
            Self::Line(points, half) => {
                let pairs = points.iter().zip(points.iter().skip(1));
                pairs.map(|(a, b)| segment(p, *a, *b)).fold(f64::INFINITY, f64::min) - half
            }
            Self::Head(w, jaw) => {
                let whole = if py < -1.0 {
                    ellipse(p, [0.0, -1.0], [*w, 20.0])
                } else {
                    ellipse(p, [0.0, -1.0], [*w, 23.0]).max(-1.0 - py)
                };
                let chin = ellipse(p, [0.0, 8.0], [w * jaw, 15.0]);
                whole.min(chin).min(ellipse(p, [0.0, -1.0], [*w, 21.0]).max(py - 9.0))
            }
        }
    }
}

fn scaled(c: Rgb, by: f64) -> Rgb {
    c.map(|v| v * by)
}

fn mixed(a: Rgb, share: f64, b: Rgb) -> Rgb {
    let [a0, a1, a2] = a;
    let [b0, b1, b2] = b;
    [(a0, b0), (a1, b1), (a2, b2)].map(|(a, b)| a * (1.0 - share) + b * share)
}

fn at_most(c: Rgb, most: f64) -> Rgb {
    c.map(|v| v.min(most))
}

/// The shapes of a head from back to front, each with its colour.
fn shapes(who: &Person, how: &Manner) -> Vec<(Shape, Rgb)> {
    let skin = mixed(LIGHT_SKIN, who.skin, DARK_SKIN);
    let hair = how.hair_colour.rgb();
    let (w, jaw) = (17.0 * who.width, who.jaw);
    let mut all = Vec::with_capacity(48);
    match how.hair {
        Hair::Long => all.push((Shape::EllipseAbove([0.0, 2.0], [w + 5.0, 27.0], 24.0), hair)),
        Hair::Curly => all.extend((0..9).map(|t| {
            let angle = std::f64::consts::PI * (1.02 + 0.96 * f64::from(t) / 8.0);
            (Shape::Disc([(w + 1.0) * angle.cos(), 21.0 * angle.sin() - 4.0], 6.0), hair)
        })),
        Hair::Short | Hair::Bald => {}
    }
    all.push((Shape::Line(vec![[0.0, 14.0], [0.0, 34.0]], 7.0), scaled(skin, 0.88)));
    all.push((Shape::Ellipse([0.0, 40.0], [24.0, 12.0]), mixed(hair, 0.7, [60.0, 70.0, 100.0])));
    for s in [-1.0, 1.0] {
        all.push((Shape::Ellipse([s * (w + 0.3), 1.5], [3.0, 4.6]), scaled(skin, 0.92)));
    }
    all.push((Shape::Head(w, jaw), skin));
    if how.hair != Hair::Bald {
        all.push((Shape::EllipseAbove([0.0, -3.0], [w + 2.2, 21.0], -10.5), hair));
    }
    let dark = at_most(scaled(skin, 0.35), 70.0);
    let (gap, eye) = (7.4 * who.eye_gap, -3.0 + who.eye_height);
    let wide = 3.6 * who.eye_size;
    let tall = 2.4 * who.eye_size * if how.expression == Expression::Surprised { 1.35 } else { 1.0 };
    let (lift, tilt): (f64, f64) = match how.expression {
        Expression::Neutral => (0.0, 0.5),
        Expression::Smiling => (-0.3, 0.5),
        Expression::Sad => (-0.4, -1.6),
        Expression::Surprised => (-2.0, 0.4),
    };
    let brows = if how.hair == Hair::Bald { dark } else { at_most(hair, 110.0) };
    for s in [-1.0, 1.0] {
        let at = [s * gap, eye];
        all.push((Shape::Ellipse(at, [wide, tall]), [250.0; 3]));
        all.push((Shape::Disc(at, tall.min(wide) * 0.86), IRIS.get(who.iris).copied().unwrap_or(BLACK)));
        all.push((Shape::Disc(at, tall.min(wide) * 0.42), [12.0; 3]));
        let height = eye - tall - 2.6 + lift;
        let ends = vec![[s * (gap - 3.4), height + tilt.min(0.0)], [s * (gap + 3.6), height + tilt.max(0.0)]];
        all.push((Shape::Line(ends, 0.55 + 0.45 * who.brow), brows));
    }
    let nose = 6.2 * who.nose_length;
    all.push((Shape::Line(vec![[0.0, eye + 2.5], [0.0, eye + nose]], 0.7), scaled(skin, 0.82)));
    all.push((Shape::Ellipse([0.0, eye + nose + 0.8], [2.6 * who.nose_width, 1.5]), scaled(skin, 0.74)));
    let (mouth, low) = (6.2 * who.mouth_width, 13.2);
    let bend = match how.expression {
        Expression::Neutral => Some(0.0),
        Expression::Smiling => Some(2.6),
        Expression::Sad => Some(-2.2),
        Expression::Surprised => None,
    };
    if let Some(bend) = bend {
        let point = |t: i32| {
            let along = 2.0 * f64::from(t) / 6.0;
            let off = along - 1.0;
            [-mouth + mouth * along, low + bend * (1.0 - off * off) - bend * 0.6]
        };
        let lips = mixed(skin, 0.6, [190.0, 50.0, 60.0]);
        all.push((Shape::Line((0..7).map(point).collect(), 1.25), lips));
    } else {
        all.push((Shape::Ellipse([0.0, low + 0.5], [mouth * 0.55, 3.4]), [90.0, 20.0, 30.0]));
    }
    match who.mark {
        1 => all.push((Shape::Disc([9.0, 7.0], 1.3), dark)),
        2 => {
            let freckles = [[-8.0, 5.0], [-10.5, 7.0], [-6.5, 7.5], [8.0, 5.0], [10.5, 7.0], [6.5, 7.5]];
            all.extend(freckles.map(|at| (Shape::Disc(at, 0.75), scaled(skin, 0.62))));
        }
        3 => all.push((Shape::Line(vec![[-9.0, 3.0], [-6.0, 10.0]], 0.6), scaled(skin, 0.55))),
        4 => {
            let glass = wide * 1.45;
            for s in [-1.0, 1.0] {
                all.push((Shape::Ring([s * gap, eye], glass, 0.5), BLACK));
            }
            all.push((Shape::Line(vec![[glass - gap, eye], [gap - glass, eye]], 0.5), BLACK));
        }
        5 => {
            let beard = Shape::EllipseBelow([0.0, 17.5], [w * jaw * 0.72, 5.0], 15.3);
            all.push((beard, at_most(hair, 120.0)));
        }
        _ => {}
    }
    all
}

/// The picture of a person.
#[must_use]
pub fn draw(who: &Person, how: &Manner) -> Picture {
    let shapes = shapes(who, how);
    let (cos, sin) = (how.turn.cos(), how.turn.sin());
    let mut rgb = Vec::with_capacity(3 * (SIDE * SIDE) as usize);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (x, y) = (f64::from(column) + 0.5, f64::from(row) + 0.5);
            let (dx, dy) = (x - how.x, y - how.y);
            let p = [(cos * dx + sin * dy) / how.k, (cos * dy - sin * dx) / how.k];
            let mut pixel = how.ground.rgb();
            for (shape, colour) in &shapes {
                let t = (0.5 - shape.distance(p) * how.k).clamp(0.0, 1.0);
                if t > 0.0 {
                    pixel = mixed(pixel, t * t * (3.0 - 2.0 * t), *colour);
                }
            }
            let pixel = lit(styled(pixel, how.style), how.light, x);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to bytes")]
            rgb.extend(pixel.map(|v| v.round_ties_even().clamp(0.0, 255.0) as u8));
        }
    }
    Picture { width: SIDE, height: SIDE, rgb }
}

fn styled(pixel: Rgb, style: Style) -> Rgb {
    match style {
        Style::Photo => pixel,
        Style::Cartoon => pixel.map(|v| (v.clamp(0.0, 255.0) / 51.0).round_ties_even() * 51.0),
        Style::Sketch => {
            let [r, g, b] = pixel;
            let grey = (r * 0.299 + g * 0.587 + b * 0.114) * 0.8 + 40.0;
            [grey, grey * 0.98, grey * 0.92]
        }
    }
}

fn lit(pixel: Rgb, light: Light, x: f64) -> Rgb {
    let side = match light {
        Light::Even => return pixel,
        Light::Left => -1.0,
        Light::Right => 1.0,
    };
    scaled(pixel, 1.0 + side * 0.28 * (x - 32.0) / 32.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nineteen_pictures::unbase64;

    #[derive(Deserialize)]
    struct Fixture {
        who: Person,
        how: Manner,
        rgb: String,
    }

    #[test]
    fn faces_are_those_that_the_pipeline_was_trained_on() {
        let file = std::fs::read("../../tests/fixtures/world/portraits.json").unwrap();
        let all: Vec<Fixture> = serde_json::from_slice(&file).unwrap();
        assert!(all.len() >= 12);
        for (i, Fixture { who, how, rgb }) in all.iter().enumerate() {
            let (theirs, ours) = (unbase64(rgb).unwrap(), draw(who, how).rgb);
            assert_eq!(theirs.len(), ours.len());
            let apart = theirs.iter().zip(&ours).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(apart <= 2, "face {i}: {apart} of 255 apart");
        }
    }

    #[test]
    fn everybody_looks_different() {
        let mut rng = Rng::new(&[1; 32]);
        let mut all: Vec<Vec<u8>> = vec![];
        for _ in 0..60 {
            let (who, how) = (Person::draw(&mut rng), Manner::photograph(&mut rng));
            all.push(draw(&who, &how).rgb);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 60);
    }
}
