use nineteen_checking::*; use nineteen_domain::id::ModelName; use std::time::Instant;
fn cpu()->f64{let s=std::fs::read_to_string("/proc/self/stat").unwrap();let f:Vec<&str>=s.rsplit(')').next().unwrap().split_whitespace().collect();(f[11].parse::<f64>().unwrap()+f[12].parse::<f64>().unwrap())/100.0}
fn rss()->String{std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l|l.starts_with("VmRSS")||l.starts_with("RssAnon")||l.starts_with("RssFile")).collect::<Vec<_>>().join(" ")}
fn main(){
 let c=std::path::PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/nineteen");
 let t=Instant::now(); let a=cpu();
 let rt=Runtime::load(&RuntimeConfig{library:None,cache_onnxruntime_dir:c.join("onnxruntime"),providers:vec![]}).unwrap();
 println!("runtime {:?} cpu {:.2}",t.elapsed(),cpu()-a);
 let threads:usize=std::env::args().nth(1).unwrap().parse().unwrap();
 let t=Instant::now(); let a=cpu();
 let ex=Executors::start(rt,ExecutorConfig{models_dir:c.join("models"),threads_per_model:threads,intra_threads:1,queue:4,models:vec![ModelName::new("smollm2-135m-instruct").unwrap().into(),ModelName::new("all-minilm-l6-v2").unwrap().into()]}).unwrap();
 println!("start {:?} cpu {:.2} {}",t.elapsed(),cpu()-a,rss());
 let r=tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
 let texts:Vec<String>=serde_json::from_str(&std::fs::read_to_string("/tmp/texts.json").unwrap()).unwrap();
 r.block_on(async{
  let m=ex.embedding("all-minilm-l6-v2").unwrap(); m.embed(texts.clone()).await.unwrap();
  let a=cpu(); for _ in 0..3 {m.embed(texts.clone()).await.unwrap();} println!("embed {:.1} texts/cpu-s",3.0*texts.len() as f64/(cpu()-a));
  let t=ex.text("smollm2-135m-instruct").unwrap();
  let p:Vec<u32>=t.tokenize(&texts.join(". ")).unwrap().into_iter().take(64).collect();
  let s=Sampler::Seeded{seed:3,request:1,temperature:0.7,top_p:0.95,top_k:50};
  for round in 0..2 {
  let (tx,mut rx)=tokio::sync::mpsc::channel(128);
  let a=cpu(); t.generate(GenerateRequest{prompt:Prompt::Ids(p.clone()),max_tokens:128,sampler:s,logprobs:false,stop:vec![]},tx).await.unwrap(); let g=cpu()-a;
  let mut ids=vec![]; while let Some(x)=rx.recv().await{ids.push(x.id)}
  for top in [0u8,5]{
  let a=cpu(); t.replay(ReplayRequest{prompt:Prompt::Ids(p.clone()),completion:Completion::Ids(ids.clone()),sampler:s,top}).await.unwrap(); let q=cpu()-a;
  println!("{round} n {} gen {g:.2} replay(top {top}) {q:.2} ratio {:.4} {}",ids.len(),q/g,rss());}
  let a=cpu(); t.replay(ReplayRequest{prompt:Prompt::Ids(p.clone()),completion:Completion::Ids(ids.clone()),sampler:Sampler::Seeded{seed:3,request:1,temperature:0.7,top_p:1.0,top_k:0},top:0}).await.unwrap(); println!("open {:.2}",cpu()-a);
  let a=cpu(); t.replay(ReplayRequest{prompt:Prompt::Ids(p.clone()),completion:Completion::Ids(ids.clone()),sampler:Sampler::Seeded{seed:3,request:1,temperature:0.7,top_p:0.95,top_k:0},top:0}).await.unwrap(); println!("nucleus {:.2}",cpu()-a);
  let a=cpu(); t.replay(ReplayRequest{prompt:Prompt::Ids(p.clone()),completion:Completion::Ids(ids.clone()[..1].to_vec()),sampler:Sampler::Greedy,top:0}).await.unwrap(); println!("prompt alone {:.2}",cpu()-a);
  }
 });
 r.block_on(ex.stop());
}
